"""Readings of the machine in a thread, over a fake NVML that hangs."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from mmd.control.state.machine_reader import MachineReader
from tests.gateway_peer import PATIENCE_SECONDS

Run = Callable[[str], str]

BEGIN = """
import asyncio, os, pathlib
from mmd.control.state import machine_reader as module
from mmd.control.state.machine_reader import MachineReader
from mmd.errors import TryLater
fifo = os.environ["FIFO"]
state = pathlib.Path(os.environ["MMD_FAKE_NVML"])
def set_state(text):  # atomically: the driver reads it at any moment
    new = state.with_suffix(".new")
    new.write_text(text)
    new.replace(state)
"""


@pytest.fixture
def run(nvml_folder: Path, tmp_path: Path) -> Run:
    """Runs code in a process whose NVML hangs until FIFO is opened for writing, and returns what it prints."""

    def run(code: str) -> str:
        fifo = tmp_path / "fifo"
        os.mkfifo(fifo)
        (tmp_path / "nvml").write_text(f"waits {fifo}\n1000\n")
        environment = {
            "LD_LIBRARY_PATH": str(nvml_folder),
            "MMD_FAKE_NVML": str(tmp_path / "nvml"),
            "FIFO": str(fifo),
            "PYTHONPATH": str(Path(__file__).parents[4]),
        }
        return subprocess.run(
            (sys.executable, "-c", BEGIN + code),
            env=os.environ | environment,
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        ).stdout

    return run


def test_event_loop_goes_on_while_the_driver_blocks(run: Run) -> None:
    """Each reading was made on the event loop, and all streams of the gateway stood still for it."""
    shown = run(
        "async def main():\n"
        "    async with MachineReader() as reader:\n"
        "        readings = [asyncio.create_task(each()) for each in (reader.resources, reader.machine)]\n"
        "        opened = None\n"
        "        while opened is None:\n"
        "            await asyncio.sleep(0)\n"
        "            try: opened = os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)\n"  # it hangs in a call of the driver
        "            except OSError: pass\n"
        "        print([reading.done() for reading in readings])\n"
        "        set_state('1000')\n"
        "        os.close(opened)\n"
        "        resources, machine = await asyncio.gather(*readings)\n"
        "        print(resources.vram.used_bytes, len(machine.gpus))\n"
        "asyncio.run(main())"
    )
    assert shown == "[False, False]\n1000 1\n"


def test_driver_that_hangs_fails_readings_and_the_process_ends(run: Run) -> None:
    shown = run(
        "async def main():\n"
        "    module._READING_TIMEOUT_SECONDS = module._CLOSE_TIMEOUT_SECONDS = 0.05\n"
        "    async with MachineReader() as reader:\n"
        "        for reading in (reader.resources, reader.machine):\n"
        "            try: await reading()\n"
        "            except TryLater as error: print(error.message)\n"
        "asyncio.run(main())"
    )
    assert shown.splitlines() == ["reading this machine has taken more than 0 s; the NVIDIA driver may hang"] * 2


async def test_calls_run_in_order_and_one_at_a_time() -> None:
    done: list[int] = []
    async with MachineReader() as reader, asyncio.timeout(PATIENCE_SECONDS):
        threads = await asyncio.gather(*(reader.call(_noted, done, number) for number in range(20)))
    assert done == [*range(20)]
    assert len(set(threads)) == 1
    assert threads[0] != threading.current_thread().name


def _noted(done: list[int], number: int) -> str:
    done.append(number)
    return threading.current_thread().name


async def test_exception_reaches_the_caller() -> None:
    async with MachineReader() as reader:
        with pytest.raises(ZeroDivisionError):
            await reader.call(lambda: 1 // 0)
        assert await reader.call(lambda: 7) == 7


async def test_call_whose_caller_has_gone_is_skipped() -> None:
    release, done = threading.Event(), list[int]()
    async with MachineReader() as reader:
        first = asyncio.create_task(reader.call(release.wait, PATIENCE_SECONDS))
        second = asyncio.create_task(reader.call(done.append, 2))
        await asyncio.sleep(0)
        second.cancel()
        await asyncio.wait([second])
        release.set()
        assert await first
        await reader.call(done.append, 3)
    assert done == [3]


async def test_host_that_is_not_used_starts_no_thread() -> None:
    before = threading.active_count()
    async with MachineReader():
        assert threading.active_count() == before
