"""Who goes and who stays: one activation as a decision about units.

systemd carries it out and keeps the order; what is decided here is only which units to name in the one call.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mmd.plan.residency import Pair, Residency, residency


@dataclass(frozen=True, slots=True)
class NoOp:
    """Nothing to do: it answers."""

    why: str


@dataclass(frozen=True, slots=True)
class AwaitStart:
    """Its start is under way: wait for that job."""

    wakes: bool  # that job is the token's: its engine runs
    why: str


@dataclass(frozen=True, slots=True)
class Start:
    """Start its token, and by that its engine or its wake."""

    rivals: tuple[str, ...]  # models whose tokens systemd knows: the new token must conflict with each
    previous: str | None  # who holds the GPU now, and gets it back if this fails
    has_engine: bool  # its engine's unit is loaded, made from an equal launch: it is used again
    has_token: bool  # so is its token: StartUnit will do
    forget: bool  # units of its name are loaded that cannot be used again: they must go first
    wakes: bool  # its engine runs: the token's job is what to wait for, not the engine's
    why: str


Step = NoOp | AwaitStart | Start


def decide(wanted: str, pairs: Mapping[str, Pair], *, same_launch: bool) -> Step:
    """The step that makes `wanted` resident. `same_launch`: its loaded units were made from an equal launch."""
    pair = pairs.get(wanted, Pair())
    here = residency(pair)
    if same_launch:
        match here:
            case Residency.RESIDENT:
                return NoOp(why="it is resident")
            case Residency.STARTING if pair.holds_gpu and not pair.waits_to_restart:
                return AwaitStart(pair.engine_stays, why="its start is under way")
    # An engine's unit that is down and that no token refers to is only there to tell how it failed: it goes by itself.
    is_down = pair.engine.active in ("failed", "inactive") and not pair.engine.job
    lies_there = pair.engine.loaded and is_down and not pair.token.loaded
    has_engine = same_launch and pair.engine.loaded and not lies_there
    has_token = has_engine and pair.token.loaded
    return Start(
        rivals=tuple(sorted(name for name, other in pairs.items() if name != wanted and other.token.loaded)),
        previous=holder(pairs, besides=wanted),
        has_engine=has_engine,
        has_token=has_token,
        forget=not has_engine and not lies_there and (pair.engine.loaded or pair.token.loaded),
        # One that is just falling asleep is woken as soon as it sleeps: its engine's own job would be done at once.
        wakes=has_engine and (here is Residency.ASLEEP or (here is Residency.STOPPING and pair.engine_stays)),
        why={
            Residency.ASLEEP: "asleep in RAM" if has_engine else "asleep with another command line",
            Residency.FAILED: "failed before, to be tried again",
            Residency.STOPPING: "on its way out, to be started again",
            Residency.RESIDENT: "resident with another command line",
            Residency.STARTING: "starting with another command line, or again after a crash",
            Residency.ABSENT: "not loaded",
        }[here],
    )


def comes_back(previous: str | None, failed: str, pairs: Mapping[str, Pair]) -> bool:
    """Whether the model that held the GPU before a failed activation gets it back."""
    return previous is not None and not taken_since(failed, pairs)


def taken_since(failed: str, pairs: Mapping[str, Pair]) -> bool:
    """Whether somebody has taken the GPU since an activation failed, be it a second try of the same model. systemd's
    own restart of it is none.
    """
    pair = pairs.get(failed, Pair())
    is_up = residency(pair) in (Residency.STARTING, Residency.RESIDENT) and not pair.waits_to_restart
    return (pair.holds_gpu and is_up) or holder(pairs, besides=failed) is not None


def holder(pairs: Mapping[str, Pair], *, besides: str | None = None) -> str | None:
    """The model whose token is held, or about to be."""
    return next((name for name, pair in sorted(pairs.items()) if name != besides and pair.holds_gpu), None)
