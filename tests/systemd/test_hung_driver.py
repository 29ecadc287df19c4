"""A GPU driver that hangs under a gateway at work: everything that needs no reading of the machine continues."""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from tests.systemd.test_gateway_faults import _client, _first, _stream
from tests.systemd.world import World, run_mmd, wait_for


class Driver:
    """The state of the fake NVML for the gateway and its children."""

    def __init__(self, world: World, nvml_folder: Path) -> None:
        world.add_gpu(nvml_folder)
        self._state = world.folder / "nvml"
        self._fifo = world.folder / "nvml.fifo"
        os.mkfifo(self._fifo)

    def hang(self) -> None:
        self._set(f"waits {self._fifo}\n0\n")

    def _set(self, state: str) -> None:
        """Replace the file under the lock of the engines, which record the VRAM that they take in it."""
        with self._state.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            new = self._state.with_suffix(".new")
            new.write_text(state)
            new.replace(self._state)

    def lets_one_go(self) -> bool:
        """Return whether a call hung at this moment. It returns then, and later ones hang: on a busy machine a few more
        may return before the FIFO is closed again.
        """
        with suppress(OSError):
            os.close(os.open(self._fifo, os.O_WRONLY | os.O_NONBLOCK))
            return True
        return False

    def recover(self, is_done: Callable[[], bool]) -> None:
        self._set("0\n")

        def has_ended() -> bool:
            self.lets_one_go()
            return is_done()

        wait_for(has_ended, what="the end of the readings")


@pytest.fixture
def driver(world: World, nvml_folder: Path) -> Driver:
    return Driver(world, nvml_folder)


async def test_streams_and_health_go_on_while_the_driver_hangs(driver: Driver, world: World, installed: str) -> None:
    """/status, /metrics and activations read NVML on the event loop: with an init of 2 s all streams stood still."""
    world.add("a", chunks=20_000, chunk_seconds=0.01)
    world.add("b")
    async with _client(installed) as client, _stream(client, "a") as lines:
        await _first(lines)
        driver.hang()
        asking = [
            asyncio.create_task(client.get("/status")),
            asyncio.create_task(client.get("/metrics")),
            asyncio.create_task(client.get("/resources")),
        ]
        await asyncio.to_thread(wait_for, driver.lets_one_go, what="a reading")
        asking.append(asyncio.create_task(client.get("/resources")))  # nothing lets this one go
        for _ in range(20):
            assert (await client.get("/health")).status_code == 200
            await anext(lines)
        assert (await client.get("/queue")).status_code == 200
        stopped = await asyncio.to_thread(run_mmd, "stop", "b")
        assert stopped.returncode == 0, stopped.stderr
        assert not asking[-1].done()
        await asyncio.to_thread(driver.recover, lambda: all(asked.done() for asked in asking))
        assert [(await asked).status_code for asked in asking] == [200] * 4


async def test_gateway_ends_although_the_driver_hangs(driver: Driver, world: World, installed: str) -> None:
    async with _client(installed) as client:
        assert (await client.get("/status")).status_code == 200
        driver.hang()
        reading = asyncio.create_task(client.get("/resources"))
        await asyncio.to_thread(wait_for, driver.lets_one_go, what="a reading")
        await asyncio.to_thread(world.manager.systemctl, "kill", "mmd.service")
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)  # it may have ended with the gateway
        await asyncio.to_thread(world.manager.systemctl, "stop", "mmd.service")
    assert world.manager.systemctl("show", "--property=Result", "--value", "mmd.service").strip() == "success"


async def test_loaded_model_serves_although_the_driver_hangs(driver: Driver, world: World, installed: str) -> None:
    """It hangs during the load: the request waited for a plan of the model that was loaded already."""
    world.add("a", load_seconds=2)
    async with _client(installed) as client:
        body = {"model": "a", "messages": [{"role": "user", "content": "hi"}]}
        asked = asyncio.create_task(client.post("/v1/chat/completions", json=body))
        await asyncio.to_thread(wait_for, lambda: bool(world.events("start")), what="the start")
        driver.hang()
        readings = [asyncio.create_task(client.get("/resources"))]
        await asyncio.to_thread(wait_for, driver.lets_one_go, what="a reading")
        readings.append(asyncio.create_task(client.get("/resources")))  # nothing lets this one go
        async with asyncio.timeout(20):
            assert (await asked).status_code == 200
        assert not readings[-1].done()
        await asyncio.to_thread(driver.recover, lambda: all(reading.done() for reading in readings))
