"""The protocol of an engine: all that mmd asks of a program that serves models over HTTP on a Unix socket.

`design.md` beside this file has it as a table, with the rules and how to add an engine. Methods import what they need
themselves: the table of engines is read to list models, which must not import the planning of a launch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar

from mmd.errors import EngineMissing

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from mmd.engines.build import Build
    from mmd.engines.installer.recipe import Recipe
    from mmd.machine import Machine
    from mmd.plan.breakdown import Breakdown
    from mmd.plan.constants import Constants
    from mmd.plan.engine import Installed, ServeOptions
    from mmd.plan.last_words import LogStyle
    from mmd.plan.launch import Flag, Sleep
    from mmd.plan.measurement import LoadLog, Observation, Sizes
    from mmd.plan.memory import MemoryModel
    from mmd.registry.record import Facts, Format, Model


class Engine(ABC):
    """One line of the table `mmd.engines.ENGINES`. It has no state.

    The pure half is `mmd.plan.engine.Planner`, which documents those methods.
    """

    name: ClassVar[str]
    family: ClassVar[str]  # what people call it, whichever build of it is installed: "llama.cpp"
    formats: ClassVar[tuple[Format, ...]]
    stop_seconds: ClassVar[int] = 10
    exits_zero_on_crash: ClassVar[bool] = False
    conversations: ClassVar[int] = 1  # whole contexts for which memory is useful to it
    is_program: ClassVar[bool] = True  # False for a package that runs in mmd's own Python
    # Counters on its metrics page, of tokens in prompts (cached ones too) and in responses.
    input_token_counters: ClassVar[tuple[str, ...]] = ()
    output_token_counters: ClassVar[tuple[str, ...]] = ()
    install_names: ClassVar[tuple[str, ...]] = ()  # for `mmd engine install`; () if mmd does not install it

    # -- finding it

    @abstractmethod
    def find(self, configured: str | None) -> Installed | None:
        """Probe the engine at the place the user configured, or at its usual ones; None if it is not installed.

        Raises EngineMissing if it is there and does not work.
        """

    def is_confirmed(self, program: Path) -> bool:
        """True if nothing that `find` reports has to be checked against the running program; see `confirm`."""
        return True

    def confirm(self, program: Path) -> None:
        """Ask the program itself what it accepts, if that takes too long for `find`. Raises EngineMissing."""
        return

    def read_build(self, program: Path, *, has_gpu: bool) -> Build | None:
        """Return what the program was compiled for; None if that is unknown. It may take half a second."""
        return None

    # -- planning: pure, see Planner

    @abstractmethod
    def flags(self, model: Model, machine: Machine, engine: Installed, options: ServeOptions) -> tuple[Flag, ...]: ...

    @abstractmethod
    def environment(
        self, machine: Machine, engine: Installed, *, cache: str, ready_seconds: int
    ) -> tuple[tuple[str, str], ...]: ...

    @abstractmethod
    def budget_bytes(self, model: Model, machine: Machine, engine: Installed) -> int: ...

    def device_counts(
        self, model: Model, machine: Machine, engine: Installed, arguments: Sequence[str]
    ) -> tuple[int, ...]:
        """Return the counts for an engine that uses one GPU at most."""
        return (1,) if self.on_gpu(machine, engine) else ()

    @abstractmethod
    def ready_seconds(self, model: Model) -> int: ...

    @abstractmethod
    def on_gpu(self, machine: Machine, engine: Installed) -> bool: ...

    def sleep(self, model: Model, machine: Machine, engine: Installed) -> Sleep | None:
        return None

    # -- its memory and its log: pure but for `report_breakdown`

    @property
    def constants(self) -> Constants:
        from mmd.plan.constants import Constants

        return Constants()

    @property
    @abstractmethod
    def log_style(self) -> LogStyle: ...

    @abstractmethod
    def memory(
        self,
        facts: Facts,
        machine: Machine,
        words: Sequence[str],
        *,
        projector_bytes: int,
        on_gpu: bool,
        constants: Constants,
    ) -> MemoryModel: ...

    @abstractmethod
    def read_load_log(self, lines: Sequence[str]) -> LoadLog: ...

    @abstractmethod
    def measure(self, observation: Observation) -> Sizes: ...

    def min_capability(self, quant: str) -> tuple[int, ...]:
        return ()

    def breakdown_words(self, flags: Sequence[Flag], context: int) -> tuple[str, ...] | None:
        return None

    def report_breakdown(self, engine: Installed, words: Sequence[str], *, sees_gpus: bool) -> Breakdown:
        """Run the engine with `breakdown_words` and return what it reports that it would allocate.

        Raises EngineMissing if this version cannot, and EngineFailed with its output if it does not.
        """
        raise EngineMissing(f"{engine.title} does not report its memory", hint="mmd engine list")

    # -- installing it

    def recipe(self, *, has_gpu: bool, for_cpu: bool) -> Recipe:
        """Return how mmd installs it. Raises EngineMissing if that cannot be done here."""
        raise EngineMissing(f"mmd does not install {self.family}", hint=self.how_to_install())

    def how_to_install(self) -> str:
        """Return the command that installs it, for a hint."""
        return f"mmd engine install {self.install_names[0]}" if self.install_names else "mmd engine list"

    def missing(self) -> EngineMissing:
        """Return the error for a model of its format if no engine that serves it is installed."""
        formats = " or ".join(self.formats)
        return EngineMissing(f"no engine for {formats} files is installed", hint=self.how_to_install())

    def cache_folder(self, version: str) -> Path | None:
        """Return the folder in which this version keeps files for its models, to be deleted with it."""
        return None
