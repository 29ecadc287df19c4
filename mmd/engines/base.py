"""The protocol of an engine: what mmd asks of a program that serves models over HTTP on a Unix socket."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from mmd.machine import Machine
from mmd.plan.constants import Constants
from mmd.plan.engine import Installed
from mmd.plan.launch import Flag, Sleep
from mmd.plan.memory import Memory
from mmd.registry.record import Facts, Format, Model


class Engine(ABC):
    """An engine of the table. It has no state; the pure methods are those of `mmd.plan.engine.Planner`."""

    name: ClassVar[str]
    formats: ClassVar[tuple[Format, ...]]
    stop_seconds: ClassVar[int] = 10
    exits_zero_on_crash: ClassVar[bool] = False

    @abstractmethod
    def find(self, configured: str | None) -> Installed | None:
        """Probe the engine at the place the user configured, or at its usual ones; None if it is not installed.

        Raises EngineMissing if it is there and does not work.
        """

    @abstractmethod
    def flags(
        self,
        model: Model,
        machine: Machine,
        engine: Installed,
        *,
        socket: str,
        context: int | None,
        aliases: tuple[str, ...],
        arguments: tuple[str, ...],
    ) -> tuple[Flag, ...]: ...

    @abstractmethod
    def environment(
        self, machine: Machine, engine: Installed, *, cache: str, ready_seconds: int
    ) -> tuple[tuple[str, str], ...]: ...

    @abstractmethod
    def budget_bytes(self, model: Model, machine: Machine, engine: Installed) -> int: ...

    @abstractmethod
    def ready_seconds(self, model: Model) -> int: ...

    @abstractmethod
    def sleep(self, model: Model, machine: Machine, engine: Installed) -> Sleep | None: ...

    @abstractmethod
    def on_gpu(self, machine: Machine, engine: Installed) -> bool: ...

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
    ) -> Memory: ...
