"""The cost of the ledger and the gate: a swap on one GPU by this mmd, and by the one before them, in turns."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tarfile
from io import BytesIO
from pathlib import Path

from tests.bench.measure import Row
from tests.bench.stack import Upstream
from tests.fakes.nvml import FakeGpus
from tests.well_known import llama_of

_REPOSITORY = Path(__file__).parents[2]
_BEFORE = "14b2599"  # the last commit whose tokens held the GPU by Conflicts= alone
_BLOCKS = 7
_SWAPS = 8
_EXIT_MS = 30  # of an engine; the gate starts meanwhile


def measure(folder: Path) -> list[Row]:
    rows = []
    gpus = FakeGpus(folder / "nvml", (24,))
    variables = [f"{name}={value}" for name, value in gpus.environment.items()]
    subprocess.run(("systemctl", "--user", "set-environment", *variables), check=True)
    try:
        for exit_ms in (_EXIT_MS, 0):
            Upstream.install(folder, exit_ms=exit_ms)
            rows += _compared(folder, gpus, f"engines that need {exit_ms} ms to end")
    finally:
        gpus.close()
    return rows


def _compared(folder: Path, gpus: FakeGpus, engines: str) -> list[Row]:
    trees = {"now": _REPOSITORY}
    if before := _tree_of(_BEFORE, folder / "before"):
        trees["before"] = before
    files = [str(llama_of(14).write(folder / f"{name}.gguf")) for name in "ab"]
    times: dict[str, list[float]] = {name: [] for name in trees}
    cpu: dict[str, list[float]] = {name: [] for name in trees}
    over: list[float] = []
    for _ in range(_BLOCKS):
        block = {name: _swaps(tree, folder / f"data-{name}", gpus, files) for name, tree in trees.items()}
        for name, (milliseconds, cpu_ms) in block.items():
            times[name] += milliseconds
            cpu[name].append(cpu_ms)
        if "before" in block:
            over.append(statistics.median(block["now"][0]) - statistics.median(block["before"][0]))
    rows = [Row(f"swap, {engines}: {name}", "ms", milliseconds) for name, milliseconds in times.items()]
    rows += [Row(f"CPU time of its planner, {engines}: {name}", "ms", each) for name, each in cpu.items()]
    if over:
        rows.append(Row("the same: now over before, by blocks", "ms", over, "≤ 5"))
    return rows


def _tree_of(commit: str, folder: Path) -> Path | None:
    """Unpack the mmd of a commit, if this is a clone that has it."""
    if not folder.exists():
        packed = subprocess.run(
            ("git", "-C", _REPOSITORY, "archive", commit, "mmd"), stdout=subprocess.PIPE, check=False
        )
        if packed.returncode:
            print(f"Not compared: this folder has no commit {commit}")
            return None
        with tarfile.open(fileobj=BytesIO(packed.stdout)) as archive:
            archive.extractall(folder, filter="data")
    return folder


def _swaps(tree: Path, data: Path, gpus: FakeGpus, files: list[str]) -> tuple[list[float], float]:
    """Swap in a process of its own, with a registry of its own; return each swap and its CPU time, in ms."""
    words = (sys.executable, "-P", str(Path(__file__).with_name("swap_once.py")), str(_SWAPS), *files)
    environment = os.environ | gpus.environment | {"PYTHONPATH": str(tree), "XDG_DATA_HOME": str(data)}
    done = subprocess.run(words, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    measured = json.loads(done.stdout.splitlines()[-1])
    return measured["ms"], measured["cpu_ms"]
