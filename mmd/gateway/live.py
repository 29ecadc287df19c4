"""The models over systemd: what the gateway asks, answered from a watched view of the units and of the registry."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mmd.control.aliases import Names, names_of
from mmd.control.controller import Controller
from mmd.control.present import models_json, resources_json, status_json
from mmd.control.startup import startups
from mmd.control.status import active_of, resources
from mmd.errors import MmdError, NoSuchModel, SwapSuperseded
from mmd.machine import read_machine
from mmd.paths import config_file, engine_socket
from mmd.plan.residency import Pair, Residency, residency
from mmd.plan.swap import holder
from mmd.registry.record import Model
from mmd.settings import read_settings
from mmd.units.watch import Pairs, Watch

_log = logging.getLogger(__name__)

# How often an activation may lose the GPU to others before it is given up.
_MOST_SUPERSEDED = 3


class LiveModels:
    """A `Models` for the gateway."""

    def __init__(self, controller: Controller, watch: Watch) -> None:
        self._controller = controller
        self._watch = watch
        self._registered: dict[str, Model] = {}
        self._settings_file = config_file()
        self._settings = controller.settings
        self._names = names_of({}, controller.settings)
        self._stamps: object = None

    def find(self, name: str | None) -> str:
        if name:
            self._models()
            return self._names.ids.get(name) or self._refuse(name)
        held_by = holder(self._watch.pairs)  # or about to be: the request waits for the swap that is under way
        if held_by is None:
            raise NoSuchModel(
                "the request names no model, and none is active",
                hint="mmd activate ID   # or name one of: mmd list",
            )
        return held_by

    def address(self, model_id: str) -> str | None:
        if self._residency(model_id) is not Residency.RESIDENT:
            return None
        return str(engine_socket(model_id))

    def is_asleep(self, model_id: str) -> bool:
        # Not before: an engine on its way to sleep finishes what it has begun.
        return self._residency(model_id) is Residency.ASLEEP

    def follow(self, listener: Callable[[], None]) -> None:
        self._watch.follow(listener)

    async def made_room(self, model_id: str) -> bool:
        await self._watch.refresh()
        return made_room(model_id, self._watch.pairs)

    async def activate(self, model_id: str, *, drain_seconds: float) -> None:
        """A swap that somebody else has begun goes first: cut short by a request, it would be begun in vain."""
        for left in reversed(range(_MOST_SUPERSEDED)):
            await self._watch.refresh()
            await self._watch.until(lambda pairs: not another_starts(model_id, pairs))
            try:
                await self._controller.activate(model_id, drain_seconds=drain_seconds)
            except SwapSuperseded:
                await self._watch.refresh()
                # By nobody, if it was stopped: then that is what the user wants.
                if not left or holder(self._watch.pairs, besides=model_id) is None:
                    raise
            else:
                await self._watch.refresh()
                return

    async def sleep(self, model_id: str | None) -> None:
        await self._controller.sleep(model_id)
        await self._watch.refresh()

    async def stop(self, model_id: str | None) -> None:
        await self._controller.stop(model_id)
        await self._watch.refresh()

    async def status(self) -> dict[str, Any]:
        return status_json(await self._controller.status())

    async def models(self) -> list[dict[str, Any]]:
        pairs = self._watch.pairs
        where = {model_id: residency(pair) for model_id, pair in pairs.items()}
        models = self._models().values()
        return models_json(models, where, active_of(pairs), startups(self._settings), self._names.aliases)

    async def resources(self) -> dict[str, Any]:
        return resources_json(resources(read_machine()))

    def _residency(self, model_id: str) -> Residency:
        return residency(self._watch.pairs.get(model_id, Pair()))

    def _refuse(self, name: str) -> str:
        self._names.require_clear(name)
        return self._controller.registry.get(name).id

    def _models(self) -> dict[str, Model]:
        """The registry, read again with mmd.toml whenever one of the files has changed: a request costs two stat()."""
        stamps = _stamp(self._controller.registry.file), _stamp(self._settings_file)
        if stamps != self._stamps:
            self._registered = self._controller.registry.load()
            self._names = self._read_names()
            self._stamps = stamps
        return self._registered

    def _read_names(self) -> Names:
        """With the aliases that are known already while mmd.toml is damaged: somebody is at work on it."""
        try:
            self._settings = read_settings(self._settings_file)
        except MmdError as error:
            _log.warning("%s; the aliases stay as they are", error.message)
        names = names_of(self._registered, self._settings)
        for warning in names.warnings():
            _log.warning("%s", warning)
        return names


def _stamp(file: Path) -> tuple[int, ...] | None:
    try:
        status = file.stat()
    except FileNotFoundError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino


def another_starts(model_id: str, pairs: Pairs) -> bool:
    """Whether another model is being loaded or woken; one that crashed and waits to be started again is not."""
    return any(
        residency(pair) is Residency.STARTING and pair.holds_gpu and not pair.waits_to_restart
        for name, pair in pairs.items()
        if name != model_id
    )


def made_room(model_id: str, pairs: Pairs) -> bool:
    """Whether the model's engine, which has just ended, was ended by a swap. A crash leaves its token as it is, and
    systemd waits before it starts the engine again.
    """
    pair = pairs.get(model_id, Pair())
    if pair.token.active != "active" or pair.token.job == "stop":
        return holder(pairs, besides=model_id) is not None
    return residency(pair) is Residency.STARTING and not pair.waits_to_restart  # and has been swapped in again
