"""vLLM, which serves folders of safetensors."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from mmd.engines.base import Engine
from mmd.errors import EngineMissing
from mmd.registry.record import Format

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mmd.engines.build import Build
    from mmd.engines.installer.recipe import Recipe
    from mmd.engines.vllm.constants import VllmConstants
    from mmd.engines.vllm.installed import InstalledVllm
    from mmd.machine import Machine
    from mmd.plan.constants import Constants
    from mmd.plan.engine import Installed, ServeOptions
    from mmd.plan.last_words import LogStyle
    from mmd.plan.launch import Flag, Sleep
    from mmd.plan.measurement import LoadLog, Observation, Sizes
    from mmd.plan.memory import MemoryModel
    from mmd.registry.record import Facts, Model


class _Vllm(Engine):
    name: ClassVar[str] = "vllm"
    family: ClassVar[str] = "vllm"
    formats: ClassVar[tuple[Format, ...]] = (Format.SAFETENSORS,)
    stop_seconds: ClassVar[int] = 15
    exits_zero_on_crash: ClassVar[bool] = True  # when its engine core has died
    conversations: ClassVar[int] = 2  # its requests share one pool
    input_token_counters: ClassVar[tuple[str, ...]] = ("vllm:prompt_tokens_total",)
    output_token_counters: ClassVar[tuple[str, ...]] = ("vllm:generation_tokens_total",)
    install_names: ClassVar[tuple[str, ...]] = ("vllm",)

    def find(self, configured: str | None) -> InstalledVllm | None:
        from mmd.engines.vllm.find import find

        return find(self, configured)

    def is_confirmed(self, program: Path) -> bool:
        from mmd.engines.vllm.find import is_confirmed

        return is_confirmed(program)

    def confirm(self, program: Path) -> None:
        from mmd.engines.vllm.find import confirm

        confirm(program)

    def read_build(self, program: Path, *, has_gpu: bool) -> Build | None:
        from mmd.engines.vllm.torch_build import read_build

        return read_build(program)

    def flags(self, model: Model, machine: Machine, engine: Installed, options: ServeOptions) -> tuple[Flag, ...]:
        from mmd.engines.vllm import argv

        return argv.flags(model, machine, engine, options)

    def environment(
        self, machine: Machine, engine: Installed, *, cache: str, ready_seconds: int
    ) -> tuple[tuple[str, str], ...]:
        from mmd.engines.vllm import argv

        return argv.environment(machine, engine, cache=cache, ready_seconds=ready_seconds)

    def budget_bytes(self, model: Model, machine: Machine, engine: Installed) -> int:
        from mmd.engines.vllm import argv

        return argv.budget_bytes(model, machine, engine)

    def device_counts(
        self, model: Model, machine: Machine, engine: Installed, arguments: Sequence[str]
    ) -> tuple[int, ...]:
        from mmd.engines.vllm import argv

        return argv.device_counts(model, machine, engine, arguments)

    def ready_seconds(self, model: Model) -> int:
        from mmd.engines.vllm import argv

        return argv.ready_seconds(model)

    def on_gpu(self, machine: Machine, engine: Installed) -> bool:
        from mmd.engines.vllm import argv

        return argv.on_gpu(machine, engine)

    def sleep(self, model: Model, machine: Machine, engine: Installed) -> Sleep | None:
        from mmd.engines.vllm import argv

        return argv.sleep(model, machine, engine)

    def min_capability(self, quant: str) -> tuple[int, ...]:
        from mmd.engines.vllm import argv

        return argv.min_capability(quant)

    @property
    def constants(self) -> VllmConstants:
        from mmd.engines.vllm.constants import VllmConstants

        return VllmConstants()

    @property
    def log_style(self) -> LogStyle:
        from mmd.engines.vllm.log import LOG_STYLE

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
        from mmd.engines.vllm.memory import vllm_memory

        return vllm_memory(facts, machine, words, projector_bytes=projector_bytes, on_gpu=on_gpu, constants=constants)

    def read_load_log(self, lines: Sequence[str]) -> LoadLog:
        from mmd.engines.vllm.log import read_load_log

        return read_load_log(lines)

    def measure(self, observation: Observation) -> Sizes:
        from mmd.engines.vllm.log import measure

        return measure(observation)

    def missing(self) -> EngineMissing:
        return EngineMissing(
            "no engine for safetensors is installed: no vLLM on PATH, in mmd.toml, or installed by mmd",
            hint=f"{self.how_to_install()}   # or take the same model as a GGUF, which runs on llama.cpp",
        )

    def recipe(self, *, has_gpu: bool, for_cpu: bool) -> Recipe:
        from mmd.engines.vllm.install import recipe

        return recipe(has_gpu=has_gpu and not for_cpu)

    def cache_folder(self, version: str) -> Path:
        from mmd.engines.vllm import argv
        from mmd.paths import cache_dir

        return Path(argv.cache_root(str(cache_dir()), version))


VLLM = _Vllm()
