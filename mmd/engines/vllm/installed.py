"""An installed vLLM, as its probe found it."""

from __future__ import annotations

from dataclasses import dataclass

from mmd.plan.engine import Installed


@dataclass(frozen=True, slots=True)
class InstalledVllm(Installed):
    platform: str = ""  # what it was built for: "cpu", "cuda"
    tool_parsers: frozenset[str] = frozenset()  # names that --tool-call-parser accepts
    reasoning_parsers: frozenset[str] = frozenset()  # names that --reasoning-parser accepts


def as_vllm(engine: Installed) -> InstalledVllm:
    assert isinstance(engine, InstalledVllm)  # `find` makes no other
    return engine
