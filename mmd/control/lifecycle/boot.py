"""Load models when the machine starts: those that start asleep, one after another, then the default model.

The boot unloads no other model. If another one takes the GPU meanwhile, a user or a request asked for it and has
priority.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from mmd.control.install.service import start_gateway
from mmd.control.lifecycle.controller import Controller
from mmd.control.models.startup import startups
from mmd.errors import ManagerUnreachable, MmdError, SwapSuperseded
from mmd.journal import about
from mmd.paths import runtime_dir
from mmd.plan.boot import Activate, End, Load, Order, Yield, next_step, order
from mmd.plan.residency import Pair, Residency, residency
from mmd.units.lock import boot_lock
from mmd.units.watch import Pairs, read_pairs

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class BootReport:
    """The result of a boot: the loaded models, and why others are not loaded, all by id."""

    asleep: tuple[str, ...] = ()
    active: str | None = None
    skipped: dict[str, str] = field(default_factory=dict)
    failed: dict[str, MmdError] = field(default_factory=dict)
    yielded: str | None = None  # why it ended early


async def boot(controller: Controller) -> BootReport:
    """Load the models of a boot. A second boot waits for the first and then has nothing to do; a boot after one that
    was killed continues it.

    A model that fails is reported, and the others are still loaded. Raises ManagerUnreachable, RegistryDamaged, and
    WrongUsage if mmd.toml names two defaults.
    """
    async with boot_lock():
        registered = [model.id for model in controller.registry.all()]
        todo = order(startups(controller.settings), registered)
        if todo.sleepers or todo.default is not None:
            await start_gateway(controller.manager)
        report = await _Boot(controller, todo).carry_out()
        _mark().unlink(missing_ok=True)
        return report


class _Boot:
    def __init__(self, controller: Controller, todo: Order) -> None:
        self._controller = controller
        self._todo = todo
        self._left_behind = _read_mark()
        self._tried: set[str] = set()
        self._report = BootReport()

    async def carry_out(self) -> BootReport:
        for model_id in self._todo.unknown:
            self._skip(
                model_id, f"mmd.toml names it, but it is not registered; remove it: mmd startup {model_id} disabled"
            )
        await self._skip_models_that_cannot_sleep()
        while self._report.yielded is None:
            match next_step(self._todo, await self._pairs(), tried=self._tried, left_behind=self._left_behind):
                case Load(model_id):
                    await self._take_turn(model_id, self._load_and_sleep)
                case Activate(model_id):
                    await self._take_turn(model_id, self._activate)
                case Yield(to):
                    self._yield(f"{to} holds the GPU", to)
                case End():
                    break
        pairs = await self._pairs()
        self._report.asleep = tuple(name for name in self._todo.sleepers if _is(Residency.ASLEEP, name, pairs))
        if self._todo.default is not None and _is(Residency.RESIDENT, self._todo.default, pairs):
            self._report.active = self._todo.default
        return self._report

    async def _skip_models_that_cannot_sleep(self) -> None:
        """Run before the first load, so that no model is loaded only to be stopped."""
        can_sleep = []
        pairs = await self._pairs()
        for model_id in self._todo.sleepers:
            try:
                is_asleep = _is(Residency.ASLEEP, model_id, pairs)
                if is_asleep or (await self._controller.planner.launch(model_id)).sleep is not None:
                    can_sleep.append(model_id)
                else:
                    self._skip(model_id, "its engine cannot sleep, so it would only be loaded and stopped")
            except MmdError as error:
                self._fail(model_id, error)
        self._todo = replace(self._todo, sleepers=tuple(can_sleep))

    async def _take_turn(self, model_id: str, step: Callable[[str], Awaitable[None]]) -> None:
        """Carry out one model's step; report a failure instead of raising it."""
        self._tried.add(model_id)
        self._left_behind = None
        try:
            await step(model_id)
        except ManagerUnreachable:
            raise
        except SwapSuperseded as error:
            # Another model or `mmd stop` superseded it: the boot must not interfere with a user.
            self._yield(error.message, model_id)
        except MmdError as error:
            self._fail(model_id, error)

    async def _load_and_sleep(self, model_id: str) -> None:
        _mark().write_text(model_id, "utf-8")
        await self._controller.activate(model_id, evicts=False)
        await self._controller.sleep(model_id)
        pairs = await self._pairs()
        # If a request woke it meanwhile, it holds the GPU, and the next step decides.
        if not _is(Residency.ASLEEP, model_id, pairs) and not pairs.get(model_id, Pair()).holds_gpu:
            self._skip(model_id, f"it did not fall asleep and was stopped; mmd logs {model_id} says why")

    async def _activate(self, model_id: str) -> None:
        await self._controller.activate(model_id, evicts=False)

    async def _pairs(self) -> Pairs:
        return await read_pairs(self._controller.manager)

    # -- each is logged when it happens: a boot takes minutes, and may be killed before its end

    def _skip(self, model_id: str, reason: str) -> None:
        self._report.skipped[model_id] = reason
        _log.info("%s is not loaded at startup: %s", model_id, reason, extra=about(model_id))

    def _fail(self, model_id: str, error: MmdError) -> None:
        self._report.failed[model_id] = error
        _log.error("at startup: %s", error.message, extra=about(model_id))

    def _yield(self, reason: str, model_id: str) -> None:
        self._report.yielded = reason
        _log.info("the boot ends early: %s", reason, extra=about(model_id))


def _mark() -> Path:
    """Return the path of the file that names the model which a boot is about to put to sleep.

    If that boot is killed, the next boot finds the model on the GPU. Without this file it would yield to the model, as
    to one that a user activated.
    """
    return runtime_dir() / ".boot.model"  # no model's id begins with a dot


def _read_mark() -> str | None:
    try:
        return _mark().read_text("utf-8")
    except FileNotFoundError:
        return None


def _is(wanted: Residency, model_id: str, pairs: Pairs) -> bool:
    return residency(pairs.get(model_id, Pair())) is wanted
