"""The two GPUs and the six models of the stress, and its log: what all its processes share."""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.systemd.world import World

GPUS_GIB = (24, 16)
# The size of each model's weights in GiB; f needs both GPUs.
SLEEPERS = {"a": 10.5, "c": 4.5, "f": 22}
OTHERS = {"b": 9, "d": 2, "e": 1}
MODELS = (*SLEEPERS, *OTHERS)
SETUPS = (("b", "d", "e"), ("a", "c"), ("c", "d"), ("a", "b", "d"))
LEASES_GB = (3, 8, 15, 22)

_CONTEXT = 4096
_LOAD_SECONDS = {"a": 0.06, "b": 0.04, "c": 0.04, "d": 0.02, "e": 0.02, "f": 0.06}
# Time enough for a newcomer to load beside a model that leaves, if nothing but luck kept it from that.
_SLOW: dict[str, Any] = {"exit_seconds": 0.15, "sleep_seconds": 0.15, "wake_seconds": 0.08}
_KEEPS_MIB = 900

# Environment variables of the stress's processes.
LOG = "MMD_STRESS_LOG"
HOOKS = "MMD_STRESS_HOOKS"


def furnish(world: World, llama_server: Path) -> None:
    """Register the models, with contexts that do not grow: several fit beside each other."""
    contexts = "".join(f"[models.{name}]\ncontext = {_CONTEXT}\n" for name in MODELS)
    world.settings(
        f'[engines]\nvllm = "{world.add_vllm()}"\nllama-server = "{llama_server}"\n{contexts}', residency="many"
    )
    for name, size_gib in SLEEPERS.items():
        world.add_sized_vllm(name, size_gib, load_seconds=_LOAD_SECONDS[name], keeps_mib=_KEEPS_MIB, **_SLOW)
    for name, size_gib in OTHERS.items():
        world.add_sized(name, size_gib, embedding=name in "de", load_seconds=_LOAD_SECONDS[name], **_SLOW)


@dataclass(frozen=True)
class Done:
    """One operation of the log, and how it ended."""

    by: str
    what: str
    outcome: str
    seconds: float = 0.0
    detail: str = ""


class Log:
    """The operations of all processes, one line each."""

    def __init__(self) -> None:
        self._path = Path(os.environ[LOG])

    @property
    def is_over(self) -> bool:
        return self._path.with_suffix(".over").exists()

    def end(self) -> None:
        """Let all processes end after their current operation."""
        self._path.with_suffix(".over").touch()

    def add(self, done: Done) -> None:
        # One write to an O_APPEND file: lines of processes that share the log never mix.
        descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        os.write(descriptor, f"{json.dumps({'t': round(time.monotonic(), 4), **vars(done)})}\n".encode())
        os.close(descriptor)

    def read(self) -> list[Done]:
        if not self._path.exists():
            return []
        rows = [json.loads(line) for line in self._path.read_text().splitlines()]
        return [Done(row["by"], row["what"], row["outcome"], row["seconds"], row["detail"]) for row in rows]
