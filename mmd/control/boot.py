"""The boot: what is to sleep is loaded and put to sleep, strictly one after another, then the default is activated.

It takes the GPU from nobody. Whoever has it in between was asked for by a person or a request, who come first.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from mmd.control.controller import Controller
from mmd.control.startup import startups
from mmd.errors import MmdError, SwapSuperseded
from mmd.plan.boot import is_loaded, order
from mmd.plan.residency import Residency
from mmd.units.lock import boot_lock

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class BootReport:
    """How a boot went; ids, and reasons by id."""

    asleep: list[str] = field(default_factory=list)
    active: str | None = None
    skipped: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    yielded_to: str | None = None  # who took the GPU, so that the boot went no further


class _Yielded(Exception):
    """The GPU is somebody else's."""

    def __init__(self, to: str) -> None:
        super().__init__(to)
        self.to = to


async def boot(controller: Controller) -> BootReport:
    """Carry out a boot. A second one waits for the first, and finds everything in place.

    A model that fails is in the report, and the rest goes on. Raises what cannot be worked around: no user manager, a
    damaged registry, two defaults.
    """
    report = BootReport()
    async with boot_lock():
        registered = [model.id for model in controller.registry.all()]
        plan = order(startups(controller.settings), registered)
        report.skipped |= dict.fromkeys(plan.unknown, "it is in mmd.toml, and not registered")
        try:
            for model_id in plan.sleepers:
                await _guarded(controller, model_id, report, _have_asleep)
            if plan.default in registered:
                await _guarded(controller, plan.default, report, _have_active)
        except _Yielded as yielded:
            report.yielded_to = yielded.to
    _tell(report)
    return report


async def _guarded(
    controller: Controller, model_id: str, report: BootReport, step: Callable[..., Awaitable[None]]
) -> None:
    """One model's part; its failure is the report's."""
    try:
        await step(controller, model_id, report)
    except SwapSuperseded as error:
        holder = await controller.holder()
        if holder is not None and holder != model_id:
            raise _Yielded(holder) from error
        report.failed[model_id] = error.message
    except MmdError as error:
        report.failed[model_id] = error.message


async def _have_asleep(controller: Controller, model_id: str, report: BootReport) -> None:
    if is_loaded((await controller.residencies()).get(model_id, Residency.ABSENT)):
        report.asleep.append(model_id)
        return
    if controller.launch(model_id).sleep is None:
        report.skipped[model_id] = "its engine cannot sleep, and it would be stopped again"
        return
    await _require_nobody(controller)
    await controller.activate(model_id)
    await controller.sleep(model_id)
    if (await controller.residencies()).get(model_id) is Residency.ASLEEP:
        report.asleep.append(model_id)
    else:
        report.skipped[model_id] = f"it did not fall asleep and was stopped; mmd logs {model_id} says why"


async def _have_active(controller: Controller, model_id: str, report: BootReport) -> None:
    await _require_nobody(controller, besides=model_id)
    await controller.activate(model_id)
    report.active = model_id


async def _require_nobody(controller: Controller, *, besides: str | None = None) -> None:
    holder = await controller.holder()
    if holder is not None and holder != besides:
        raise _Yielded(holder)


def _tell(report: BootReport) -> None:
    for model_id, reason in report.skipped.items():
        _log.info("%s is not loaded at startup: %s", model_id, reason, extra={"MMD_MODEL": model_id})
    for model_id, reason in report.failed.items():
        _log.error("at startup: %s", reason, extra={"MMD_MODEL": model_id})
    if report.yielded_to:
        _log.info("the boot goes no further: %s has the GPU", report.yielded_to)
