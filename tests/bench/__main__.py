"""`make bench`: every measurement of the design on this machine, a table for each section.

python -m tests.bench [SECTION…]    only sections whose names begin so: swap, gateway, gateway-trace
"""

from __future__ import annotations

import asyncio
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from mmd.machine import read_machine
from tests.bench import (
    busy_swap,
    cli,
    crowd,
    data_path,
    estimate,
    gateway,
    ledger,
    placement,
    pull,
    read_ahead,
    residents,
    swap,
    trace,
    vllm,
    wake,
)
from tests.bench.measure import Row, print_rows
from tests.bench.stack import write_settings
from tests.user_manager import user_manager


def main(wanted: list[str]) -> int:
    names = [name for name in _SECTIONS if not wanted or name.startswith(tuple(wanted))]
    if not names:
        print(f"There are the sections {', '.join(_SECTIONS)}", file=sys.stderr)
        return 2
    # An installed mmd has its bytecode written, too.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    print(_this_machine())
    for name in names:
        print(f"\n{name}, begun at a load of {os.getloadavg()[0]:.1f}\n", flush=True)
        # Each section has its own home, so that none finds leftovers of another.
        with user_manager() as manager, tempfile.TemporaryDirectory(dir=manager.home) as folder:
            os.environ.update(manager.environment)
            if rows := _SECTIONS[name](Path(folder)):
                print_rows(rows)
    return 0


def _swap(folder: Path) -> list[Row]:
    _use_llama_server()
    return asyncio.run(swap.measure(folder))


def _use_llama_server() -> None:
    if program := os.environ.get("MMD_TEST_LLAMA_SERVER"):
        write_settings(f'[engines]\nllama-server = "{program}"\n')


def _estimate(folder: Path) -> list[Row]:
    _use_llama_server()
    return estimate.measure(folder)


def _wake(folder: Path) -> list[Row]:
    return asyncio.run(wake.measure(folder))


def _vllm(folder: Path) -> list[Row]:
    if program := os.environ.get("MMD_TEST_VLLM"):
        return asyncio.run(vllm.measure(folder, program))
    print("Not measured: MMD_TEST_VLLM names no vLLM")
    return []


def _read_ahead(_folder: Path) -> list[Row]:
    """Make a folder outside the manager's home, which may be in memory."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        return asyncio.run(read_ahead.measure(Path(folder)))


def _pull(_folder: Path) -> list[Row]:
    """Make a folder on a disk, where downloads are."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        return pull.measure(Path(folder))


_SECTIONS: dict[str, Callable[[Path], list[Row]]] = {
    "swap": _swap,
    "ledger": ledger.measure,
    "placement": placement.measure,
    "wake": _wake,
    "cli": cli.measure,
    "estimate": _estimate,
    "gateway-rest": gateway.measure,
    "gateway-path": data_path.measure,
    "gateway-swap": busy_swap.measure,
    "gateway-crowd": crowd.measure,
    "gateway-trace": trace.measure,
    "residents": residents.measure,
    "vllm": _vllm,
    "read-ahead": _read_ahead,
    "pull": _pull,
}


def _this_machine() -> str:
    machine = read_machine()
    systemd = subprocess.run(["systemctl", "--version"], capture_output=True, text=True, check=True).stdout.split()[1]
    gpus = ", ".join(gpu.name for gpu in machine.gpus) or "no GPU"
    return (
        f"{machine.cpu}, {machine.cpu_threads} threads, {machine.ram_total_bytes / 2**30:.0f} GiB, {gpus}; "
        f"Linux {platform.release()}, systemd {systemd}, Python {platform.python_version()}"
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
