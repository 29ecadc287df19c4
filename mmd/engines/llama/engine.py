"""The engines that serve GGUF files with llama.cpp's server: as a program, and as a Python package."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from mmd.engines.base import Engine
from mmd.engines.llama import argv, log
from mmd.engines.llama.constants import LlamaConstants
from mmd.engines.llama.memory import llama_memory
from mmd.errors import EngineMissing
from mmd.plan.constants import Constants
from mmd.plan.engine import Installed
from mmd.plan.last_words import LogStyle
from mmd.registry.record import Format

if TYPE_CHECKING:
    from mmd.engines.installer.recipe import Recipe
    from mmd.plan.breakdown import Breakdown


class _Llama(Engine):
    """It cannot sleep: --sleep-idle-seconds takes the VRAM back on any request, without asking mmd."""

    family: ClassVar[str] = "llama.cpp"
    formats: ClassVar[tuple[Format, ...]] = (Format.GGUF,)
    constants: ClassVar[Constants] = LlamaConstants()
    log_style: ClassVar[LogStyle] = log.LOG_STYLE
    stop_seconds: ClassVar[int] = 5  # with a request in flight it may wait for a client that never goes away

    flags = staticmethod(argv.flags)
    environment = staticmethod(argv.environment)
    budget_bytes = staticmethod(argv.budget_bytes)
    ready_seconds = staticmethod(argv.ready_seconds)
    on_gpu = staticmethod(argv.on_gpu)
    memory = staticmethod(llama_memory)
    read_load_log = staticmethod(log.read_load_log)
    measure = staticmethod(log.measure)

    def missing(self) -> EngineMissing:
        return EngineMissing(
            "no engine for GGUF files is installed: neither llama-server on PATH nor the embedded llama.cpp",
            hint=f"{EMBEDDED.how_to_install()}   # or put llama-server on PATH",
        )


class _LlamaServer(_Llama):
    name: ClassVar[str] = "llama-server"
    install_names: ClassVar[tuple[str, ...]] = ("llama.cpp", "llama-server")

    breakdown_words = staticmethod(argv.breakdown_words)

    def find(self, configured: str | None) -> Installed | None:
        from mmd.engines.llama.find import find

        return find(self, configured)

    def report_breakdown(self, engine: Installed, words: Sequence[str], *, sees_gpus: bool) -> Breakdown:
        from mmd.engines.llama.breakdown import report_breakdown

        return report_breakdown(engine, words, sees_gpus=sees_gpus)

    def recipe(self, *, has_gpu: bool, for_cpu: bool) -> Recipe:
        from mmd.engines.llama.install import recipe

        return recipe(has_gpu=has_gpu, for_cpu=for_cpu)


class _Embedded(_Llama):
    name: ClassVar[str] = "embedded"
    is_program: ClassVar[bool] = False

    # xllamacpp's wheels are built for any x86-64 CPU with AVX2, without AMX.
    memory = staticmethod(partial(llama_memory, is_amx_build=False))

    def find(self, configured: str | None) -> Installed | None:
        from mmd.engines.llama.embedded import find

        return find(self, configured)

    def how_to_install(self) -> str:
        from mmd.engines.llama.embedded import how_to_install

        return how_to_install()


LLAMA_SERVER = _LlamaServer()
EMBEDDED = _Embedded()
