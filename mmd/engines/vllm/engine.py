"""vLLM, which serves folders of safetensors."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from mmd.engines.base import Engine
from mmd.engines.vllm import argv, log
from mmd.engines.vllm.constants import VllmConstants
from mmd.engines.vllm.memory import vllm_memory
from mmd.errors import EngineMissing
from mmd.plan.constants import Constants
from mmd.plan.engine import Installed
from mmd.plan.last_words import LogStyle
from mmd.registry.record import Format

if TYPE_CHECKING:
    from mmd.engines.installer.recipe import Recipe


class _Vllm(Engine):
    name: ClassVar[str] = "vllm"
    family: ClassVar[str] = "vllm"
    formats: ClassVar[tuple[Format, ...]] = (Format.SAFETENSORS,)
    constants: ClassVar[Constants] = VllmConstants()
    log_style: ClassVar[LogStyle] = log.LOG_STYLE
    stop_seconds: ClassVar[int] = 15
    exits_zero_on_crash: ClassVar[bool] = True  # when its engine core has died
    install_names: ClassVar[tuple[str, ...]] = ("vllm",)

    flags = staticmethod(argv.flags)
    environment = staticmethod(argv.environment)
    budget_bytes = staticmethod(argv.budget_bytes)
    ready_seconds = staticmethod(argv.ready_seconds)
    sleep = staticmethod(argv.sleep)
    on_gpu = staticmethod(argv.on_gpu)
    min_capability = staticmethod(argv.min_capability)
    memory = staticmethod(vllm_memory)
    read_load_log = staticmethod(log.read_load_log)
    measure = staticmethod(log.measure)

    def find(self, configured: str | None) -> Installed | None:
        from mmd.engines.vllm.find import find

        return find(self, configured)

    def is_confirmed(self, program: Path) -> bool:
        from mmd.engines.vllm.find import is_confirmed

        return is_confirmed(program)

    def confirm(self, program: Path) -> None:
        from mmd.engines.vllm.find import confirm

        confirm(program)

    def missing(self) -> EngineMissing:
        return EngineMissing(
            "no engine for safetensors is installed: no vLLM on PATH, in mmd.toml, or installed by mmd",
            hint=f"{self.how_to_install()}   # or take the same model as a GGUF, which runs on llama.cpp",
        )

    def recipe(self, *, has_gpu: bool, for_cpu: bool) -> Recipe:
        from mmd.engines.vllm.install import recipe

        return recipe(has_gpu=has_gpu and not for_cpu)

    def cache_folder(self, version: str) -> Path:
        from mmd.paths import cache_dir

        return Path(argv.cache_root(str(cache_dir()), version))


VLLM = _Vllm()
