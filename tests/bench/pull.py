"""The cost of `mmd pull` over a bare download of the same file by huggingface_hub: whole programs, a local hub."""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from tests.bench.measure import Row
from tests.tiny_models import tiny_gguf

_FILE_BYTES = 1_000_000_000
_RUNS = 5
_REPOSITORY = "me/large-GGUF"
_FILE = "large-Q8_0.gguf"
_BARE = f"from huggingface_hub import hf_hub_download; hf_hub_download('{_REPOSITORY}', '{_FILE}')"


def measure(folder: Path) -> list[Row]:
    """Start the hub as a program of its own. The file is sparse: reading it costs the hub nothing."""
    file = folder / "hub" / _REPOSITORY / _FILE
    file.parent.mkdir(parents=True)
    tiny_gguf(file)
    os.truncate(file, _FILE_BYTES)
    programs = {
        "huggingface_hub alone": (sys.executable, "-c", _BARE),
        "mmd pull": (sys.executable, "-m", "mmd", "pull", _REPOSITORY),
    }
    with subprocess.Popen(
        (sys.executable, "-m", "tests.fakes.hub", str(folder / "hub")), stdout=subprocess.PIPE, text=True
    ) as hub:
        assert hub.stdout is not None
        url = hub.stdout.readline().split("HF_ENDPOINT=")[1].split()[0]
        environment = os.environ | {"HF_ENDPOINT": url, "HF_HUB_DISABLE_XET": "1", "HF_HOME": str(folder / "cache")}
        try:
            seconds = _alternating(programs, environment, folder / "cache")
        finally:
            hub.terminate()
    bare, pull = seconds.values()
    size = f"{_FILE_BYTES / 1e9:.0f} GB over loopback"
    return [
        *(Row(f"{name}, {size}", "s", values) for name, values in seconds.items()),
        Row("overhead, of the medians", "%", [100 * (statistics.median(pull) / statistics.median(bare) - 1)], "≤ 5"),
    ]


def _alternating(
    programs: Mapping[str, tuple[str, ...]], environment: Mapping[str, str], cache: Path
) -> dict[str, list[float]]:
    seconds: dict[str, list[float]] = {name: [] for name in programs}
    for run in range(_RUNS + 1):  # the first download fills the hub's memory of hashes, and is not counted
        for name, program in programs.items():
            shutil.rmtree(cache, ignore_errors=True)
            began = time.perf_counter()
            subprocess.run(program, env=environment, capture_output=True, check=True)
            if run:
                seconds[name].append(time.perf_counter() - began)
    return seconds
