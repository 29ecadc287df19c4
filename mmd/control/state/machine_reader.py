"""Read the machine (memory, GPUs, files) from asynchronous code: calls that may block run in one worker thread."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from queue import SimpleQueue
from threading import Thread
from typing import ParamSpec, Self, TypeVar

from mmd.control.state.memory_use import Resources, read_resources
from mmd.errors import TryLater
from mmd.machine import Gpu, Machine, Nvml, read_machine

# NVML takes seconds to initialise a GPU that no program has open. A driver that hangs never answers.
_READING_TIMEOUT_SECONDS = 60.0
# An engine's --help may take a minute, and wait for the probe of another engine, which takes 20 s.
_CALL_TIMEOUT_SECONDS = 300.0
_CLOSE_TIMEOUT_SECONDS = 1.0

_log = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")


class MachineReader:
    """Reads this machine in one worker thread, which it owns. Close it when done.

    The thread starts with the first call, runs the calls in order, one at a time, and keeps NVML open between readings.
    It is a daemon thread: a driver that hangs does not keep the process from ending.
    """

    def __init__(self) -> None:
        self._nvml = Nvml()
        self._thread = _WorkerThread("mmd-machine")

    async def machine(self) -> Machine:
        """Read the whole machine, processes on the GPUs included. Raises TryLater if the driver hangs."""
        return await self._read(partial(read_machine, self._nvml))

    async def gpus(self) -> tuple[Gpu, ...]:
        """Read the GPUs and the processes on them. Raises TryLater if the driver hangs."""
        _, gpus = await self._read(self._nvml.gpus)
        return gpus

    async def resources(self) -> Resources:
        """Read how much memory is in use. Raises TryLater if the driver hangs."""
        return await self._read(partial(read_resources, self._nvml))

    async def call(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `work` in the thread and return its result: for files, programs and imports that may take a while.

        Raises what `work` raises, and TryLater if the thread hangs.
        """
        return await self._within(_CALL_TIMEOUT_SECONDS, partial(work, *args, **kwargs))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close NVML and end the thread. A thread that hangs is left behind."""
        if self._thread.is_running:
            try:
                async with asyncio.timeout(_CLOSE_TIMEOUT_SECONDS):
                    await self._thread.call(self._nvml.close)
            except Exception as error:  # noqa: BLE001 - at the end, and the driver may fail in any way
                _log.info("NVML did not close: %r", error)
            self._thread.end()

    async def _read(self, reading: Callable[[], T]) -> T:
        return await self._within(_READING_TIMEOUT_SECONDS, reading)

    async def _within(self, seconds: float, work: Callable[[], T]) -> T:
        try:
            async with asyncio.timeout(seconds) as timeout:
                return await self._thread.call(work)
        except TimeoutError as error:
            if not timeout.expired():
                raise
            raise TryLater(
                f"reading this machine has taken more than {seconds:.0f} s; the NVIDIA driver may hang",
                hint="nvidia-smi   # does the driver answer?",
            ) from error


class _WorkerThread:
    """Runs calls one after another. Not a ThreadPoolExecutor: the interpreter waits for those when it ends."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread: Thread | None = None

    @property
    def is_running(self) -> bool:
        return self._thread is not None

    async def call(self, work: Callable[[], T]) -> T:
        """Return what `work` returns. A call whose caller was cancelled before it began is skipped."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._calls.put(partial(_run, work, loop, future))
        if self._thread is None:
            self._thread = Thread(target=self._work, name=self._name, daemon=True)
            self._thread.start()
        return await future

    def end(self) -> None:
        """End the thread after the queued calls."""
        self._calls.put(None)
        self._thread = None

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            call()
            del call  # a loop that has ended is not kept until the next call


def _run(work: Callable[[], T], loop: asyncio.AbstractEventLoop, future: asyncio.Future[T]) -> None:
    if future.done():
        return
    try:
        settle = partial(_set_result, future, work())
    except BaseException as error:  # noqa: BLE001 - raised again where the call is awaited
        settle = partial(_set_exception, future, error)
    try:
        loop.call_soon_threadsafe(settle)
    except RuntimeError:
        return  # the loop has been closed: nothing awaits the result


def _set_result(future: asyncio.Future[T], result: T) -> None:
    if not future.done():
        future.set_result(result)


def _set_exception(future: asyncio.Future[T], error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)
