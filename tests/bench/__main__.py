"""`make bench`: every measure of the design on this machine, as a table."""

from __future__ import annotations

import asyncio
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

from mmd.machine import read_machine
from mmd.paths import config_file
from tests.bench import cli, gateway, read_ahead, swap, vllm, wake
from tests.bench.measure import Row, print_rows
from tests.user_manager import user_manager


def main() -> int:
    print(_this_machine())
    with user_manager() as manager, tempfile.TemporaryDirectory(dir=manager.home) as folder:
        os.environ.update(manager.environment)
        if program := os.environ.get("MMD_TEST_LLAMA_SERVER"):
            config_file().parent.mkdir(parents=True)
            config_file().write_text(f'[engines]\nllama-server = "{program}"\n')
        rows: list[Row] = []
        rows += asyncio.run(swap.measure(Path(folder)))
        rows += asyncio.run(wake.measure(Path(folder)))
        rows += cli.measure(Path(folder))
        rows += gateway.measure()
        if program := os.environ.get("MMD_TEST_VLLM"):
            rows += asyncio.run(vllm.measure(Path(folder), program))
        rows += _on_disk()
        print_rows(rows)
    return 0


def _on_disk() -> list[Row]:
    """Not in the manager's home, which may be in memory."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        return asyncio.run(read_ahead.measure(Path(folder)))


def _this_machine() -> str:
    machine = read_machine()
    systemd = subprocess.run(["systemctl", "--version"], capture_output=True, text=True, check=True).stdout.split()[1]
    gpus = ", ".join(gpu.name for gpu in machine.gpus) or "no GPU"
    return (
        f"{machine.cpu}, {machine.cpu_threads} threads, {machine.ram_total_bytes / 2**30:.0f} GiB, {gpus}; "
        f"Linux {platform.release()}, systemd {systemd}, Python {platform.python_version()}; "
        f"load {os.getloadavg()[0]:.1f}\n"
    )


if __name__ == "__main__":
    sys.exit(main())
