"""The engines that serve GGUF files with llama.cpp's server: as a program, and as a Python package."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from mmd.engines.base import Engine
from mmd.errors import EngineMissing
from mmd.registry.record import Format

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mmd.engines.build import Build
    from mmd.engines.installer.recipe import Recipe
    from mmd.engines.llama.constants import LlamaConstants
    from mmd.machine import Machine
    from mmd.plan.breakdown import Breakdown
    from mmd.plan.constants import Constants
    from mmd.plan.engine import Installed, ServeOptions
    from mmd.plan.last_words import LogStyle
    from mmd.plan.launch import Flag
    from mmd.plan.measurement import LoadLog, Observation, Sizes
    from mmd.plan.memory import MemoryModel
    from mmd.registry.record import Facts, Model


class _Llama(Engine):
    """It cannot sleep: --sleep-idle-seconds takes the VRAM back on any request, without asking mmd."""

    family: ClassVar[str] = "llama.cpp"
    formats: ClassVar[tuple[Format, ...]] = (Format.GGUF,)
    stop_seconds: ClassVar[int] = 5  # with a request in flight it may wait for a client that never goes away
    # It counts cached prompt tokens separately.
    input_token_counters: ClassVar[tuple[str, ...]] = (
        "llamacpp:prompt_tokens_total",
        "llamacpp:prompt_tokens_cached_total",
    )
    output_token_counters: ClassVar[tuple[str, ...]] = ("llamacpp:tokens_predicted_total",)
    is_amx_build: ClassVar[bool] = True  # it uses AMX if the CPU has it

    def flags(self, model: Model, machine: Machine, engine: Installed, options: ServeOptions) -> tuple[Flag, ...]:
        from mmd.engines.llama import argv

        return argv.flags(model, self._seen_by(machine, engine), engine, options)

    def environment(
        self, machine: Machine, engine: Installed, *, cache: str, ready_seconds: int
    ) -> tuple[tuple[str, str], ...]:
        from mmd.engines.llama import argv

        return argv.environment(self._seen_by(machine, engine))

    def budget_bytes(self, model: Model, machine: Machine, engine: Installed) -> int:
        from mmd.engines.llama import argv

        return argv.budget_bytes(model, self._seen_by(machine, engine), engine)

    def device_counts(
        self, model: Model, machine: Machine, engine: Installed, arguments: Sequence[str]
    ) -> tuple[int, ...]:
        from mmd.engines.llama import argv

        return argv.device_counts(machine) if self.on_gpu(machine, engine) else ()

    def ready_seconds(self, model: Model) -> int:
        from mmd.engines.llama import argv

        return argv.ready_seconds(model)

    def on_gpu(self, machine: Machine, engine: Installed) -> bool:
        from mmd.engines.llama import argv

        return argv.on_gpu(machine, engine)

    def _seen_by(self, machine: Machine, engine: Installed) -> Machine:
        return machine if self.on_gpu(machine, engine) else replace(machine, gpus=())

    @property
    def constants(self) -> LlamaConstants:
        from mmd.engines.llama.constants import LlamaConstants

        return LlamaConstants()

    @property
    def log_style(self) -> LogStyle:
        from mmd.engines.llama.log import LOG_STYLE

        return LOG_STYLE

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
        from mmd.engines.llama.memory import llama_memory

        return llama_memory(
            facts,
            machine if on_gpu else replace(machine, gpus=()),
            words,
            projector_bytes=projector_bytes,
            on_gpu=on_gpu,
            constants=constants,
            is_amx_build=self.is_amx_build,
        )

    def read_load_log(self, lines: Sequence[str]) -> LoadLog:
        from mmd.engines.llama.log import read_load_log

        return read_load_log(lines)

    def measure(self, observation: Observation) -> Sizes:
        from mmd.engines.llama.log import measure

        return measure(observation)

    def missing(self) -> EngineMissing:
        return EngineMissing(
            "no engine for GGUF files is installed: neither llama-server on PATH nor the embedded llama.cpp",
            hint=f"{EMBEDDED.how_to_install()}   # or put llama-server on PATH",
        )


class _LlamaServer(_Llama):
    name: ClassVar[str] = "llama-server"
    install_names: ClassVar[tuple[str, ...]] = ("llama.cpp", "llama-server")

    def find(self, configured: str | None) -> Installed | None:
        from mmd.engines.llama.find import find

        return find(self, configured)

    def read_build(self, program: Path, *, has_gpu: bool) -> Build | None:
        """Return the GPUs that it can use; None without a GPU, for it would look for one."""
        from mmd.engines.build import Build
        from mmd.engines.llama.find import devices

        if not has_gpu or (found := devices(str(program))) is None:
            return None
        return Build(self.name, devices=found, gpu_hint=f"{self.how_to_install()}   # with CUDA")

    def breakdown_words(self, flags: Sequence[Flag], context: int) -> tuple[str, ...]:
        from mmd.engines.llama import argv

        return argv.breakdown_words(flags, context)

    def report_breakdown(self, engine: Installed, words: Sequence[str], *, sees_gpus: bool) -> Breakdown:
        from mmd.engines.llama.breakdown import report_breakdown

        return report_breakdown(engine, words, sees_gpus=sees_gpus)

    def recipe(self, *, has_gpu: bool, for_cpu: bool) -> Recipe:
        from mmd.engines.llama.install import recipe

        return recipe(has_gpu=has_gpu, for_cpu=for_cpu)


class _Embedded(_Llama):
    name: ClassVar[str] = "embedded"
    is_program: ClassVar[bool] = False

    is_amx_build: ClassVar[bool] = False  # xllamacpp's wheels are built for any x86-64 CPU with AVX2

    def find(self, configured: str | None) -> Installed | None:
        from mmd.engines.llama.embedded import find

        return find(self, configured)

    def on_gpu(self, machine: Machine, engine: Installed) -> bool:
        return False  # its wheels are built for CPUs

    def read_build(self, program: Path, *, has_gpu: bool) -> Build:
        from mmd.engines.build import Build

        return Build("the embedded llama.cpp", gpu_hint=f"{LLAMA_SERVER.how_to_install()}   # with CUDA")

    def how_to_install(self) -> str:
        from mmd.engines.llama.embedded import how_to_install

        return how_to_install()


LLAMA_SERVER = _LlamaServer()
EMBEDDED = _Embedded()
