"""The time of the command line: whole processes, with a thousand models registered."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

from mmd.atomic import write_atomically
from mmd.registry import models_json
from mmd.registry.store import Registry
from tests.bench.measure import Row
from tests.tiny_models import tiny_gguf

_MODELS = 1000
_RUNS = 15
_TAB = {"_MMD_COMPLETE": "fish_complete", "COMP_WORDS": "mmd show model-000", "COMP_CWORD": "model-000"}


def measure(folder: Path) -> list[Row]:
    _register_a_thousand(folder)
    hook = [sys.executable, "-I", "-S", str(Path(__file__).parents[2] / "mmd/hooks/ready.py")]
    return [
        Row("mmd --help", "ms", _time("--help"), "≤ 100"),
        Row(f"TAB after mmd show, {_MODELS} models", "ms", _time(**_TAB), "≤ 100"),
        Row(f"mmd status, {_MODELS} models", "ms", _time("status"), "≤ 120"),
        Row(f"mmd list, {_MODELS} models", "ms", _time("list"), "≤ 120"),
        Row("start of the ready hook, to its first failure", "ms", _time_command(hook), "≤ 25"),
    ]


def _register_a_thousand(folder: Path) -> None:
    registry = Registry()
    model = registry.add(tiny_gguf(folder / "many.gguf", name="many"), id="many")
    models = [replace(model, id=f"model-{index:04}", path=f"{model.path}.{index}") for index in range(_MODELS)]
    write_atomically(registry.file, models_json.render(models))


def _time(*words: str, **environment: str) -> list[float]:
    return _time_command([sys.executable, "-m", "mmd", *words], **environment)


def _time_command(command: list[str], **environment: str) -> list[float]:
    times = []
    for _ in range(_RUNS + 1):  # the first run writes the bytecode, and is not counted
        began = time.perf_counter()
        subprocess.run(
            command,
            env=os.environ | environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=False,
        )
        times.append((time.perf_counter() - began) * 1000)
    return times[1:]
