"""The protocol by which planning uses an engine: the pure part of `mmd.engines.base.Engine`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from mmd.machine import Machine
from mmd.plan.allocation import Allocation
from mmd.plan.constants import Constants
from mmd.plan.last_words import LogStyle
from mmd.plan.launch import Flag, Sleep
from mmd.plan.measurement import LoadLog, Observation, Sizes
from mmd.plan.memory import MemoryModel
from mmd.registry.record import Facts, Format, Model


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """Options of one engine process, set by the user and by mmd."""

    socket: str  # the path of the Unix socket that it listens on
    context: int | None = None  # tokens; None for as many as fit
    aliases: tuple[str, ...] = ()  # further names of the model
    arguments: tuple[str, ...] = ()  # the user's own, from mmd.toml
    allocation: Allocation | None = None  # its share; None if it may use the whole machine


class Planner(Protocol):
    """The rules by which an engine serves a model. Every method is pure: no I/O, no clock."""

    def __hash__(self) -> int: ...

    @property
    def name(self) -> str:
        """The name in the engines table and in mmd.toml: "llama-server"."""
        ...

    @property
    def formats(self) -> tuple[Format, ...]:
        """The formats of model files that it serves."""
        ...

    @property
    def constants(self) -> Constants:
        """The defaults of its memory formulas, for a machine on which nothing was measured."""
        ...

    @property
    def log_style(self) -> LogStyle:
        """How it writes the lines of its log."""
        ...

    @property
    def stop_seconds(self) -> int:
        """The time it may take to exit before it is killed."""
        ...

    @property
    def conversations(self) -> int:
        """The number of whole contexts for which memory is useful to it: 2 if requests share its cache."""
        ...

    @property
    def exits_zero_on_crash(self) -> bool:
        """True if it exits with status 0 when a part of it has died."""
        ...

    def flags(
        self,
        model: Model,
        machine: Machine,
        engine: Installed,
        options: ServeOptions,
    ) -> tuple[Flag, ...]:
        """Return every decision in the order of the command line; those left to the engine have no words.

        With an allocation, `machine` has the GPUs of its share only, and the model uses all of them. Raises
        EngineMissing if this version cannot serve the model.
        """
        ...

    def environment(
        self, machine: Machine, engine: Installed, *, cache: str, ready_seconds: int
    ) -> tuple[tuple[str, str], ...]:
        """Return the variables to set; `cache` is a folder that the engine may keep files in."""
        ...

    def budget_bytes(self, model: Model, machine: Machine, engine: Installed) -> int:
        """Return the memory that the model may use on this machine when no other model of mmd runs."""
        ...

    def device_counts(
        self, model: Model, machine: Machine, engine: Installed, arguments: Sequence[str]
    ) -> tuple[int, ...]:
        """Return over how many GPUs of the machine the model can be spread, fewest first; () if it runs in RAM.

        `arguments` are the user's own.
        """
        ...

    def ready_seconds(self, model: Model) -> int:
        """Return how long a load may take before it counts as failed."""
        ...

    def sleep(self, model: Model, machine: Machine, engine: Installed) -> Sleep | None:
        """Return how the engine releases the GPU without ending; None if it must be stopped instead."""
        ...

    def on_gpu(self, machine: Machine, engine: Installed) -> bool:
        """True if the engine would put the model into GPU memory."""
        ...

    def memory(
        self,
        facts: Facts,
        machine: Machine,
        words: Sequence[str],
        *,
        projector_bytes: int,
        on_gpu: bool,
        constants: Constants,
    ) -> MemoryModel:
        """Return the formulas for a model under the `words` of a command line; `machine` without models of mmd.

        `constants` are those of this engine, with some of them replaced by what was measured.
        """
        ...

    def min_capability(self, quant: str) -> tuple[int, ...]:
        """Return the compute capability that a GPU needs for this quantisation; () if any will do."""
        ...

    def breakdown_words(self, flags: Sequence[Flag], context: int) -> tuple[str, ...] | None:
        """Return the arguments with which the engine reports its memory without loading; None if it cannot."""
        ...

    def read_load_log(self, lines: Sequence[str]) -> LoadLog:
        """Return the memory that a load took, as the engine's log reports it."""
        ...

    def measure(self, observation: Observation) -> Sizes:
        """Return the measured memory of a running engine, by component of an estimate."""
        ...


@dataclass(frozen=True, slots=True)
class Installed:
    """An engine found on this machine, as its probe describes it. An engine may subclass this record."""

    engine: Planner
    command: tuple[str, ...]  # what starts it, before any flag: ("/usr/bin/llama-server",)
    version: str
    flags: frozenset[str]  # every option it accepts, as written: "--metrics"
    can_sleep: bool = False  # this version can release the GPU without ending

    @property
    def name(self) -> str:
        return self.engine.name

    @property
    def title(self) -> str:
        """Name and version, for people: "llama-server 0.6.0"."""
        return f"{self.name} {self.version}"
