"""Take all models off the GPUs before the machine suspends, and restore them afterwards.

A suspend loses VRAM unless the driver is configured to save it; an engine that used it is then broken.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime

from mmd.control.lifecycle.missing_hook import kill_if_hook_missing
from mmd.control.lifecycle.phases import hook_phases, monotonic
from mmd.control.state.last_asked import asked_first
from mmd.control.state.suspended_models import forget_suspended, note_suspended
from mmd.errors import MmdError
from mmd.journal import about
from mmd.plan.residency import Pair, Residency, residency
from mmd.plan.share import RAM
from mmd.units.bus import JobResult, Manager
from mmd.units.names import engine_unit, token_unit
from mmd.units.spec import Hooks
from mmd.units.watch import Pairs, read_pairs

SUSPENDS = "the machine suspends"
# Another process may have planned a swap before, and load a model after the GPUs were cleared.
_ROUNDS = 3

_log = logging.getLogger(__name__)


async def on_gpu(manager: Manager) -> tuple[str, ...]:
    """Return the models that use GPU memory, are about to, or are releasing it."""
    return _on_gpu(await read_pairs(manager))


async def suspend_models(manager: Manager, hooks: Hooks, *, drain_seconds: float) -> None:
    """See `Controller.suspend`. Failures are logged: the machine suspends anyway."""
    for _ in range(_ROUNDS):
        pairs = await read_pairs(manager)
        if not (found := _on_gpu(pairs)):
            return
        held_by = [model_id for model_id in found if pairs[model_id].holds_gpu]
        note_suspended(asked_first(held_by))
        await asyncio.gather(
            *(_suspend(manager, hooks, model_id, drain_seconds) for model_id in held_by),
            *(_stop_rest(manager, hooks, model_id, pairs) for model_id in found if model_id not in held_by),
        )


async def restore_models(activate: Callable[[str], Awaitable[object]], model_ids: Sequence[str]) -> None:
    """Activate these models and take each off the record of suspended models. Failures are logged.

    `activate` must not unload another model.
    """
    for model_id in model_ids:
        try:
            await activate(model_id)
        except MmdError as error:
            _log.warning("cannot restore %s: %s", model_id, error.message, extra=about(model_id))
        except Exception:  # noqa: BLE001 - of any kind: the others must be restored
            _log.exception("cannot restore %s", model_id, extra=about(model_id))
        forget_suspended((model_id,))


def _on_gpu(pairs: Pairs) -> tuple[str, ...]:
    return tuple(model_id for model_id, pair in sorted(pairs.items()) if _may_be_on_gpu(pair))


def _may_be_on_gpu(pair: Pair) -> bool:
    is_held = pair.token.loaded and (pair.token.active not in ("inactive", "failed") or pair.holds_gpu)
    is_there = is_held or residency(pair) is Residency.STRANDED
    # The units of mmd 0.1 do not say what their model holds.
    return is_there and (pair.holding is None or any(device != RAM for device in pair.holding.uses))


async def _stop_rest(manager: Manager, hooks: Hooks, model_id: str, pairs: Pairs) -> JobResult:
    """Stop a model whose token is not held: it is being released, or it is awake without a token."""
    if residency(pairs[model_id]) is Residency.STRANDED:
        return await manager.run_job(engine_unit(model_id), manager.stop(engine_unit(model_id)))
    return await _stop_token(manager, hooks, model_id)


async def _stop_token(manager: Manager, hooks: Hooks, model_id: str) -> JobResult:
    """Stop the model's token; return when the model has released the GPU, or has failed to."""
    await kill_if_hook_missing(manager, model_id, hooks)
    return await manager.run_job(token_unit(model_id), manager.stop(token_unit(model_id)))


async def _suspend(manager: Manager, hooks: Hooks, model_id: str, drain_seconds: float) -> None:
    fields = about(model_id, event="suspend")
    began = monotonic()
    try:
        result = await _stop_token(manager, hooks, model_id)
    except MmdError as error:
        _log.warning("%s stays on the GPU although %s: %s", model_id, SUSPENDS, error.message, extra=fields)
        return
    if result is not JobResult.DONE:
        _log.warning("%s may stay on the GPU although %s: its stop job is %s", model_id, SUSPENDS, result, extra=fields)
        return
    seconds = monotonic() - began
    _log.info("%s released the GPU in %.3f s: %s", model_id, seconds, SUSPENDS, extra=fields)
    released = {"drain": drain_seconds, "release": seconds} | hook_phases(
        model_id, "release", since=began, names={"vram_seconds": "vram_free"}
    )
    await _record(model_id, seconds, released)


async def _record(model_id: str, seconds: float, phases: dict[str, float]) -> None:
    from mmd.control.state import swap_events

    event = swap_events.SwapEvent(
        at=datetime.now(UTC).isoformat(timespec="milliseconds"),
        model=model_id,
        evicted=(),
        outcome="away",
        why=SUSPENDS,
        cause="",
        seconds=round(seconds, 4),
        phases={name: round(taken, 4) for name, taken in phases.items()},
    )
    await asyncio.to_thread(swap_events.keep, event)
