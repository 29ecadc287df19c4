"""The two engines that serve GGUF files with llama.cpp's server: the program, and the Python package."""

from __future__ import annotations

from typing import ClassVar

from mmd.engines.base import Engine
from mmd.engines.llama import argv
from mmd.engines.llama.memory import llama_memory
from mmd.plan.engine import Installed
from mmd.registry.record import Format


class _Llama(Engine):
    formats: ClassVar[tuple[Format, ...]] = (Format.GGUF,)
    stop_seconds: ClassVar[int] = 5  # with a request in flight it may wait for the client, who may never go

    flags = staticmethod(argv.flags)
    environment = staticmethod(argv.environment)
    budget_bytes = staticmethod(argv.budget_bytes)
    ready_seconds = staticmethod(argv.ready_seconds)
    sleep = staticmethod(argv.sleep)
    on_gpu = staticmethod(argv.on_gpu)
    memory = staticmethod(llama_memory)


class _LlamaServer(_Llama):
    name: ClassVar[str] = "llama-server"

    def find(self, configured: str | None) -> Installed | None:
        from mmd.engines.llama.find import find

        return find(self, configured)


class _Embedded(_Llama):
    name: ClassVar[str] = "embedded"

    def find(self, configured: str | None) -> Installed | None:
        from mmd.engines.llama.embedded import find

        return find(self, configured)


LLAMA_SERVER = _LlamaServer()
EMBEDDED = _Embedded()
