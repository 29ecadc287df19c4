"""How a model would run here: chosen, not running."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


@dataclass(frozen=True, slots=True)
class Flag:
    """One decision about the engine's command line and its reason."""

    words: tuple[str, ...]  # as they stand in argv; empty where the decision is to leave the default
    subject: str  # what it is about: "--flash-attn", or "context" where no single flag is
    reason: str
    measured: bool = False  # read off the machine at the moment of the start: another value asks for no new start
    is_address: bool = False  # where it listens or what it is called: its memory does not depend on it
    required: bool = False  # laid down by the user, or the model cannot be served without: never dropped on a refusal
    refused_by: str = ""  # a text in the engine's output that refuses this decision without naming the flag
    instead: tuple[str, ...] = ()  # the words after a refusal; () leaves the flag out


class WakeCheck(StrEnum):
    """A request whose answer shows that a model is itself again after a wake."""

    GENERATE = "generate"
    EMBED = "embed"
    SCORE = "score"
    CLASSIFY = "classify"


@dataclass(frozen=True, slots=True)
class Sleep:
    """How a model gives up the GPU and keeps its process."""

    levels: tuple[int, ...]  # that it may sleep at, the one that wakes fastest first; vLLM: 1 keeps the weights in RAM
    weights_bytes: int  # RAM that level 1 takes, and VRAM that every level frees; 0 where sleeping moves nothing (CPU)
    reserve_bytes: int  # RAM that must be left to the rest of the machine
    wake_check: WakeCheck


@dataclass(frozen=True, slots=True)
class Launch:
    """A model on this machine: the command, the memory it is meant to take, and why.

    Equal launches mean equal units, so a running unit that was made from an equal launch is left alone.
    """

    model_id: str
    engine: str
    title: str  # for people: "llama-server 0.6.0"
    type: str
    argv: tuple[str, ...]
    environment: tuple[tuple[str, str], ...]
    context: int  # tokens; 0 where the engine decides by what fits
    needs_bytes: int  # the least it can run with: weights and a small context
    socket: str
    uses_gpu: bool  # its memory is the GPU's, and must be seen to be free before the next one loads
    sleep: Sleep | None  # None where it is stopped instead
    ready_seconds: int  # how long it may load before it counts as failed
    stop_seconds: int  # how long it may take to exit before it is killed
    exits_zero_on_crash: bool  # a status of 0 that nobody asked for is a crash
    flags: tuple[Flag, ...]

    @property
    def stable_argv(self) -> tuple[str, ...]:
        """`argv` without what was measured for this one start."""
        decided = sum(len(flag.words) for flag in self.flags)
        lasting = (word for flag in self.flags if not flag.measured for word in flag.words)
        return (*self.argv[: len(self.argv) - decided], *lasting)
