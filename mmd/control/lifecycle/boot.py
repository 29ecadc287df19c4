"""Load models when the machine starts: those that start asleep, one after another, then the default.

The boot unloads no other model. If another one takes the memory meanwhile, a user or a request asked for it and has
priority.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from mmd.control.install.service import start_gateway
from mmd.control.lifecycle.controller import Controller
from mmd.control.lifecycle.setup_plan import activate_setup
from mmd.control.models.setups import Setup, setup_named
from mmd.control.models.startup import default_of, startups
from mmd.control.state.last_resident import clear_pending, pending_models
from mmd.control.tunnel.setup_tunnels import start_tunnels
from mmd.errors import ManagerUnreachable, MemoryTaken, MmdError, SwapSuperseded
from mmd.journal import about
from mmd.paths import runtime_dir
from mmd.plan.boot import Activate, DefaultKind, End, Load, Order, next_step, order
from mmd.plan.residency import Pair, Residency, residency
from mmd.units.lock import boot_lock
from mmd.units.watch import Pairs, read_pairs

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class BootReport:
    """The result of a boot: the loaded models, and why others are not loaded, all by id or by the setup's name."""

    asleep: tuple[str, ...] = ()
    active: tuple[str, ...] = ()
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
        report = BootReport()
        setup, models = await _default(controller, report)
        registered = [model.id for model in controller.registry.all()]
        todo = order(startups(controller.settings), registered, models)
        if todo.sleepers or todo.default:
            await start_gateway(controller.manager)
        await _Boot(controller, todo, report, setup).carry_out()
        _mark().unlink(missing_ok=True)
        await clear_pending(controller.manager)
        return report


async def _default(controller: Controller, report: BootReport) -> tuple[Setup | None, tuple[str, ...]]:
    """Return the default if it is a setup, and the models of the default.

    A setup that cannot be resolved is a failure in the report.
    """
    default = default_of(controller.settings)
    if default is None:
        return None, ()
    if default.kind is DefaultKind.MODEL:
        return None, (default.name,)
    registered = controller.registry.load()
    if default.kind is DefaultKind.LAST:
        return None, tuple(one for one in await pending_models(controller.manager) if one in registered)
    try:
        setup = setup_named(default.name, registered, controller.settings)
    except MmdError as error:
        _fail(report, default.name, error)
        return None, ()
    return setup, setup.models if setup is not None else ()


class _Boot:
    """One boot. Owns the models that it has tried; the report says how each ended."""

    def __init__(self, controller: Controller, todo: Order, report: BootReport, setup: Setup | None) -> None:
        self._controller = controller
        self._todo = todo
        self._setup = setup  # the default, if that is a setup
        self._left_behind = _read_mark()
        self._tried: set[str] = set()
        self._report = report

    async def carry_out(self) -> None:
        for model_id in self._todo.unknown:
            self._skip(
                model_id, f"mmd.toml names it, but it is not registered; remove it: mmd startup {model_id} disabled"
            )
        await self._skip_models_that_cannot_sleep()
        while self._report.yielded is None:
            match next_step(self._todo, await self._pairs(), tried=self._tried, left_behind=self._left_behind):
                case Load(model_id):
                    await self._take_turn(model_id, (model_id,), partial(self._load_and_sleep, model_id))
                case Activate(models):
                    await self._load_default(models)
                case End():
                    break
        pairs = await self._pairs()
        self._report.asleep = tuple(name for name in self._todo.sleepers if _is(Residency.ASLEEP, name, pairs))
        self._report.active = tuple(name for name in self._todo.default if _is(Residency.RESIDENT, name, pairs))

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
                _fail(self._report, model_id, error)
        self._todo = replace(self._todo, sleepers=tuple(can_sleep))

    async def _load_default(self, models: tuple[str, ...]) -> None:
        """Load the models of the default together."""
        if self._setup is not None:
            await self._take_turn(self._setup.name, models, partial(self._activate_setup, self._setup))
        elif len(models) == 1 or not await self._loaded_together(models):
            for model_id in models:
                if self._report.yielded is None:
                    await self._take_turn(model_id, (model_id,), partial(self._activate, model_id))

    async def _loaded_together(self, models: tuple[str, ...]) -> bool:
        """Load what was resident last, as one: then each gets its part of the memory.

        Return False if one of them fails or if they do not fit beside what has been loaded since; each is then tried
        alone.
        """
        self._tried.update(models)
        try:
            await self._controller.activate(models, evicts=False)
        except ManagerUnreachable:
            raise
        except MmdError as error:
            _log.info("%s are not loaded together: %s", ", ".join(models), error.message)
            if isinstance(error, SwapSuperseded) and not isinstance(error, MemoryTaken):
                self._yield(error.message, models[0])
            return False
        return True

    async def _take_turn(self, name: str, models: tuple[str, ...], step: Callable[[], Awaitable[object]]) -> None:
        """Carry out the step of one model or setup; report a failure instead of raising it."""
        self._tried.update(models)
        self._left_behind = None
        try:
            await step()
        except ManagerUnreachable:
            raise
        except MemoryTaken as error:
            self._skip(name, error.message)
        except SwapSuperseded as error:
            # Another model or `mmd stop` superseded it: the boot must not interfere with a user.
            self._yield(error.message, name)
        except MmdError as error:
            _fail(self._report, name, error)

    async def _load_and_sleep(self, model_id: str) -> None:
        _mark().write_text(model_id, "utf-8")
        await self._controller.activate(model_id, evicts=False)
        await self._controller.sleep(model_id)
        pairs = await self._pairs()
        # If a request woke it meanwhile, it is resident, and the next step decides.
        if not _is(Residency.ASLEEP, model_id, pairs) and not pairs.get(model_id, Pair()).holds_gpu:
            self._skip(model_id, f"it did not fall asleep and was stopped; mmd logs {model_id} says why")

    async def _activate(self, model_id: str) -> None:
        await self._controller.activate(model_id, evicts=False)

    async def _activate_setup(self, setup: Setup) -> None:
        await activate_setup(self._controller, setup, evicts=False)
        await start_tunnels(self._controller.manager, setup)

    async def _pairs(self) -> Pairs:
        return await read_pairs(self._controller.manager)

    # -- each is logged when it happens: a boot takes minutes, and may be killed before its end

    def _skip(self, model_id: str, reason: str) -> None:
        self._report.skipped[model_id] = reason
        _log.info("%s is not loaded at startup: %s", model_id, reason, extra=about(model_id))

    def _yield(self, reason: str, model_id: str) -> None:
        self._report.yielded = reason
        _log.info("the boot ends early: %s", reason, extra=about(model_id))


def _fail(report: BootReport, name: str, error: MmdError) -> None:
    report.failed[name] = error
    _log.error("at startup: %s", error.message, extra=about(name))


def _mark() -> Path:
    """Return the path of the file that names the model which a boot is about to put to sleep.

    If that boot is killed, the next boot finds the model resident. Without this file it would yield to the model, as
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
