"""The records of a planned launch."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from mmd.plan.share import RAM, Holding, Share


@dataclass(frozen=True, slots=True)
class Flag:
    """One decision about the engine's command line and its reason."""

    words: tuple[str, ...]  # as in argv; empty if the engine's default is used
    subject: str  # what it is about: "--flash-attn", or "context" if no single flag is
    reason: str
    # It depends on the memory that is free now. A running engine is not restarted because of another value.
    measured: bool = False
    is_address: bool = False  # the engine's address or the model's names, which do not change its memory
    required: bool = False  # set by the user, or the model cannot be served without it: never dropped on a refusal
    refused_by: str = ""  # a text in the engine's output that refuses this decision without naming the flag
    instead: tuple[str, ...] = ()  # the words after a refusal; () leaves the flag out


class WakeCheck(StrEnum):
    """The request whose response shows after a wake that the model has its weights."""

    GENERATE = "generate"
    EMBED = "embed"
    SCORE = "score"
    CLASSIFY = "classify"


@dataclass(frozen=True, slots=True)
class Sleep:
    """How an engine releases the GPU without ending."""

    levels: tuple[int, ...]  # fastest to wake first; level 1 keeps the weights in RAM, level 2 does not
    weights_bytes: int  # RAM that level 1 takes, and VRAM that every level frees; 0 if sleeping moves nothing (CPU)
    reserve_bytes: int  # RAM that must be left to the rest of the machine
    wake_check: WakeCheck


@dataclass(frozen=True, slots=True)
class Launch:
    """How one model runs on this machine, and why.

    Equal launches make equal units, so a running unit that was made from an equal launch is kept.
    """

    model_id: str
    engine: str
    title: str  # for people: "llama-server 0.6.0"
    type: str
    argv: tuple[str, ...]
    environment: tuple[tuple[str, str], ...]
    context: int  # tokens; 0 if the engine chooses what fits
    needs_bytes: int  # the minimum: weights and a small context
    socket: str
    share: Share  # the most that it takes of each device
    sleep: Sleep | None  # None if its engine must be stopped instead
    ready_seconds: int  # how long it may load before it counts as failed
    stop_seconds: int  # how long it may take to exit before it is killed
    exits_zero_on_crash: bool  # an exit with status 0 that mmd did not request is a crash
    flags: tuple[Flag, ...]
    keeps: Share | None = None  # what it keeps of each device while it is asleep; None if it cannot sleep

    @property
    def uses_gpu(self) -> bool:
        """True if it holds GPU memory, which the driver may free a moment after its engine has ended."""
        return any(device != RAM for device in self.share)

    @property
    def holding(self) -> Holding:
        return Holding(self.share, self.keeps)

    @property
    def stable_argv(self) -> tuple[str, ...]:
        """Return `argv` without the measured flags."""
        decided = sum(len(flag.words) for flag in self.flags)
        stable = (word for flag in self.flags if not flag.measured for word in flag.words)
        return (*self.argv[: len(self.argv) - decided], *stable)
