"""An engine that mmd does not know: `third-server` on PATH serves GGUF files. Its folder is all there is of it."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Sequence
from typing import ClassVar

from mmd.engines.base import Engine
from mmd.machine import Machine
from mmd.plan.constants import Constants
from mmd.plan.engine import Installed, ServeOptions
from mmd.plan.last_words import LogStyle
from mmd.plan.launch import Flag
from mmd.plan.measurement import LoadLog, Observation, Sizes
from mmd.registry.record import Facts, Format, Model
from tests.unit.engines.third_engine.memory import ThirdMemory

_LOADED = re.compile(r"loaded (\d+) bytes of weights")


class _Third(Engine):
    name: ClassVar[str] = "third"
    family: ClassVar[str] = "third.cpp"
    formats: ClassVar[tuple[Format, ...]] = (Format.GGUF,)
    stop_seconds: ClassVar[int] = 3

    def find(self, configured: str | None) -> Installed | None:
        program = configured or shutil.which("third-server")
        if program is None:
            return None
        options = subprocess.run((program, "--help"), capture_output=True, text=True, timeout=20, check=True).stdout
        return Installed(self, (program,), "7", frozenset(re.findall(r"--[\w-]+", options)))

    def flags(self, model: Model, machine: Machine, engine: Installed, options: ServeOptions) -> tuple[Flag, ...]:
        return (
            Flag(("-m", model.path), "-m", "the model", required=True),
            Flag(("--host", options.socket), "--host", "a Unix socket", required=True, is_address=True),
            Flag(("--alias", model.id), "--alias", "its name", required=True, is_address=True),
            Flag(("--metrics",), "--metrics", "serves counters"),
            Flag((), "--turbo", "left to the engine: on"),
        )

    def environment(
        self, machine: Machine, engine: Installed, *, cache: str, ready_seconds: int
    ) -> tuple[tuple[str, str], ...]:
        return (("THIRD_CACHE", f"{cache}/third"),)

    def budget_bytes(self, model: Model, machine: Machine, engine: Installed) -> int:
        return machine.ram_total_bytes

    def ready_seconds(self, model: Model) -> int:
        return 60

    def on_gpu(self, machine: Machine, engine: Installed) -> bool:
        return False

    @property
    def log_style(self) -> LogStyle:
        return LogStyle(prefix=re.compile(r"third (?P<level>[A-Z]+): "))

    def memory(
        self,
        facts: Facts,
        machine: Machine,
        words: Sequence[str],
        *,
        projector_bytes: int,
        on_gpu: bool,
        constants: Constants,
    ) -> ThirdMemory:
        return ThirdMemory(facts.weights_bytes, facts.kv_bytes_per_token, machine.ram_total_bytes, constants)

    def read_load_log(self, lines: Sequence[str]) -> LoadLog:
        sizes = [int(found[1]) for line in lines if (found := _LOADED.search(line))]
        return LoadLog(weights_bytes=sizes[-1] if sizes else None)

    def measure(self, observation: Observation) -> Sizes:
        return {"weights_bytes": observation.log.weights_bytes}


THIRD = _Third()
