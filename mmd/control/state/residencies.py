"""Where each model is, without the rest of the status: `mmd list` needs no more, and imports no more."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from mmd.plan.residency import Residency, residency
from mmd.plan.swap import gpu_holder
from mmd.units.watch import Pairs, read_pairs

StatusWord = Literal["active", "resident", "sleeping", "starting", "failed", "absent"]


async def current_residencies() -> tuple[dict[str, Residency], str | None]:
    """Return the residency of each model that has a unit, and the active model. Raise ManagerUnreachable."""
    from mmd.units.bus import Manager

    async with await Manager.connect() as manager:
        pairs = await read_pairs(manager)
    return {model_id: residency(pair) for model_id, pair in pairs.items()}, active_of(pairs)


def active_of(pairs: Pairs) -> str | None:
    """Return the model that answers if a request names none: the holder of the token, once it is resident."""
    held_by = gpu_holder(pairs)
    return held_by if held_by is not None and residency(pairs[held_by]) is Residency.RESIDENT else None


_STATUS_WORDS: Mapping[Residency, StatusWord] = {
    Residency.RESIDENT: "resident",
    Residency.ASLEEP: "sleeping",
    Residency.STARTING: "starting",
    Residency.FAILED: "failed",
    Residency.ABSENT: "absent",
    Residency.STOPPING: "absent",
}


def status_word(model_id: str, here: Residency, active: str | None) -> StatusWord:
    """Return the residency in the words of the API; "active" is the resident model that answers by default."""
    return "active" if here is Residency.RESIDENT and model_id == active else _STATUS_WORDS[here]
