"""A stand-in for logind on any bus: the part of its D-Bus interface that concerns suspend.

It suspends like logind: it announces it, waits until its locks are closed, but not longer than the limit it has
published, and announces the resume.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any

from dbus_fast import Message, MessageType, Variant
from dbus_fast.aio import MessageBus

_NAME = "org.freedesktop.login1"
_PATH = "/org/freedesktop/login1"
_MANAGER = "org.freedesktop.login1.Manager"
_UP_SECONDS = 20.0


@contextmanager
def private_bus(socket: Path) -> Iterator[subprocess.Popen[str]]:
    """Run a private message bus at this path."""
    words = ["dbus-daemon", "--session", "--nofork", "--nopidfile", f"--address=unix:path={socket}", "--print-address"]
    daemon = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    try:
        assert daemon.stdout is not None
        assert daemon.stdout.readline()
        yield daemon
    finally:
        daemon.kill()
        daemon.communicate()
        socket.unlink(missing_ok=True)


@dataclass
class Lock:
    """An inhibitor lock. It ends when every descriptor of its other end is closed."""

    what: str
    who: str
    why: str
    mode: str
    read_end: int
    taken: float = field(default_factory=monotonic)


class FakeLogin1:
    def __init__(self, bus: MessageBus, *, limit_seconds: float, refuses: bool = False) -> None:
        self.limit_seconds = limit_seconds
        self.refuses = refuses  # refuses to give locks, like logind without polkit
        self.locks: list[Lock] = []
        self.is_preparing = False
        self._bus = bus
        self._changed = asyncio.Condition()
        self._tasks: set[asyncio.Task[None]] = set()

    async def has_locks(self, count: int) -> None:
        async with asyncio.timeout(_UP_SECONDS), self._changed:
            await self._changed.wait_for(lambda: len(self.locks) == count)

    async def prepare(self) -> float:
        """Prepare for sleep up to the moment of suspend; return the seconds that locks delayed it."""
        began = monotonic()
        self.is_preparing = True
        self._say(True)
        try:
            async with asyncio.timeout(self.limit_seconds), self._changed:
                await self._changed.wait_for(lambda: not self.locks)
        except TimeoutError:
            pass
        return monotonic() - began

    def awaken(self) -> None:
        self.is_preparing = False
        self._say(False)

    def close(self) -> None:
        for lock in self.locks:
            asyncio.get_running_loop().remove_reader(lock.read_end)
            os.close(lock.read_end)
        self.locks.clear()
        self._bus.disconnect()

    def answer(self, message: Message) -> Message | bool | None:
        """Respond to calls of logind's methods."""
        if message.message_type is not MessageType.METHOD_CALL or message.path != _PATH:
            return None
        match message.member:
            case "Get":
                values = {
                    "PreparingForSleep": Variant("b", self.is_preparing),
                    "InhibitDelayMaxUSec": Variant("t", int(self.limit_seconds * 1_000_000)),
                }
                return Message.new_method_return(message, "v", [values[message.body[1]]])
            case "Inhibit" if self.refuses:
                return Message.new_error(message, "org.freedesktop.DBus.Error.AccessDenied", "Access denied")
            case "Inhibit":
                self._do(self._lock(message))
                return True
            case _:
                return None

    async def _lock(self, message: Message) -> None:
        read_end, write_end = os.pipe()
        what, who, why, mode = message.body
        lock = Lock(what, who, why, mode, read_end)
        asyncio.get_running_loop().add_reader(read_end, self._closed, lock)
        self.locks.append(lock)
        await self._bus.send(Message.new_method_return(message, "h", [0], unix_fds=[write_end]))
        os.close(write_end)
        await self._tell()

    def _closed(self, lock: Lock) -> None:
        asyncio.get_running_loop().remove_reader(lock.read_end)
        os.close(lock.read_end)
        self.locks.remove(lock)
        self._do(self._tell())

    async def _tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    def _say(self, is_going: bool) -> None:
        signal = Message.new_signal(_PATH, _MANAGER, "PrepareForSleep", "b", [is_going])
        self._do(self._send(signal))

    async def _send(self, message: Message) -> None:
        await self._bus.send(message)

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


@asynccontextmanager
async def fake_login1(address: str, *, limit_seconds: float = 10.0, refuses: bool = False) -> AsyncIterator[FakeLogin1]:
    bus = await MessageBus(bus_address=address, negotiate_unix_fd=True).connect()
    login1 = FakeLogin1(bus, limit_seconds=limit_seconds, refuses=refuses)
    bus.add_message_handler(login1.answer)
    await bus.request_name(_NAME)
    try:
        yield login1
    finally:
        login1.close()
        await bus.wait_for_disconnect()  # type: ignore[no-untyped-call]
