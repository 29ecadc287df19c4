"""Plan one activation: which units to name in the one D-Bus call.

systemd carries the call out and keeps the order of stops and starts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mmd.plan.residency import Pair, Residency, residency


@dataclass(frozen=True, slots=True)
class NoOp:
    """Nothing to do: the model is resident."""

    why: str


@dataclass(frozen=True, slots=True)
class AwaitStart:
    """The model's start is in progress: wait for that job."""

    wakes: bool  # the job is the token's, since the engine runs already
    why: str


@dataclass(frozen=True, slots=True)
class Start:
    """Start the model's token, which starts or wakes its engine."""

    rivals: tuple[str, ...]  # models whose tokens systemd has loaded: the new token conflicts with each
    previous: str | None  # the model that holds the GPU now; restored if this activation fails
    has_engine: bool  # its engine's unit is loaded and was made from an equal launch: it is reused
    has_token: bool  # its token is loaded, too: StartUnit is enough
    forget: bool  # units of its name are loaded that cannot be reused: they must be removed first
    wakes: bool  # its engine runs: wait for the token's job, not for the engine's
    why: str


Step = NoOp | AwaitStart | Start


def decide(wanted: str, pairs: Mapping[str, Pair], *, same_launch: bool) -> Step:
    """Return the step that makes `wanted` resident. `same_launch`: its loaded units were made from an equal launch."""
    pair = pairs.get(wanted, Pair())
    here = residency(pair)
    if same_launch:
        match here:
            case Residency.RESIDENT:
                return NoOp(why="it is resident")
            case Residency.STARTING if pair.holds_gpu and not pair.waits_to_restart:
                return AwaitStart(pair.engine_stays, why="its start is in progress")
    # A stopped engine unit without a token only records how it failed; systemd removes it by itself.
    is_down = pair.engine.active in ("failed", "inactive") and not pair.engine.job
    is_leftover = pair.engine.loaded and is_down and not pair.token.loaded
    has_engine = same_launch and pair.engine.loaded and not is_leftover
    has_token = has_engine and pair.token.loaded
    return Start(
        rivals=tuple(sorted(name for name, other in pairs.items() if name != wanted and other.token.loaded)),
        previous=gpu_holder(pairs, other_than=wanted),
        has_engine=has_engine,
        has_token=has_token,
        forget=not has_engine and not is_leftover and (pair.engine.loaded or pair.token.loaded),
        # An engine that is just falling asleep is woken when it sleeps; its own start job would end at once.
        wakes=has_engine and (here is Residency.ASLEEP or (here is Residency.STOPPING and pair.engine_stays)),
        why={
            Residency.ASLEEP: "asleep in RAM" if has_engine else "asleep with another command line",
            Residency.FAILED: "failed before, starting again",
            Residency.STOPPING: "stopping, starting again",
            Residency.RESIDENT: "resident with another command line",
            Residency.STARTING: "starting with another command line, or again after a crash",
            Residency.ABSENT: "not loaded",
        }[here],
    )


def should_restore(previous: str | None, failed: str, pairs: Mapping[str, Pair]) -> bool:
    """True if the model that held the GPU before a failed activation is restored."""
    return previous is not None and not gpu_taken_since(failed, pairs)


def gpu_taken_since(failed: str, pairs: Mapping[str, Pair]) -> bool:
    """True if another activation (including a retry of this model) took the GPU after the failure.

    systemd's own restart of the failed model does not count.
    """
    pair = pairs.get(failed, Pair())
    is_up = residency(pair) in (Residency.STARTING, Residency.RESIDENT) and not pair.waits_to_restart
    return (pair.holds_gpu and is_up) or gpu_holder(pairs, other_than=failed) is not None


def gpu_holder(pairs: Mapping[str, Pair], *, other_than: str | None = None) -> str | None:
    """Return the model, other than `other_than`, whose token is held or about to be."""
    return next((name for name, pair in sorted(pairs.items()) if name != other_than and pair.holds_gpu), None)
