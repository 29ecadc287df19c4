"""vLLM, which serves folders of safetensors."""

from __future__ import annotations

from typing import ClassVar

from mmd.engines.base import Engine
from mmd.engines.vllm import argv
from mmd.engines.vllm.memory import vllm_memory
from mmd.plan.engine import Installed
from mmd.registry.record import Format


class _Vllm(Engine):
    name: ClassVar[str] = "vllm"
    formats: ClassVar[tuple[Format, ...]] = (Format.SAFETENSORS,)
    stop_seconds: ClassVar[int] = 15
    exits_zero_on_crash: ClassVar[bool] = True  # when its engine core has died

    flags = staticmethod(argv.flags)
    environment = staticmethod(argv.environment)
    budget_bytes = staticmethod(argv.budget_bytes)
    ready_seconds = staticmethod(argv.ready_seconds)
    sleep = staticmethod(argv.sleep)
    on_gpu = staticmethod(argv.on_gpu)
    memory = staticmethod(vllm_memory)

    def find(self, configured: str | None) -> Installed | None:
        from mmd.engines.vllm.find import find

        return find(self, configured)


VLLM = _Vllm()
