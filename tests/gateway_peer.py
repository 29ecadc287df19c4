"""The surroundings of a gateway under test: scripted engines, models in memory, and a client of raw bytes.

A Peer is a real HTTP/1.1 server on a Unix socket. A test sets a coroutine for a path; other requests are echoed.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any

from mmd.control.models.setup_info import SetupInfo, setup_info
from mmd.control.models.setups import Setup
from mmd.control.state.memory_use import Memory, Resources
from mmd.control.state.model_info import ModelInfo
from mmd.control.state.status import Resident, Status
from mmd.errors import MmdError, NoSuchModel
from mmd.gateway.api.hub_process import Hub
from mmd.gateway.gateway import Gateway
from mmd.gateway.http.limits import Limits
from mmd.gateway.http.listener_kind import ListenerKind
from mmd.gateway.http.policy import RequestPolicy
from mmd.plan.boot import Startup
from mmd.plan.idle import LoadedModel, Rules
from mmd.plan.placement.occupancy import Use
from mmd.plan.queue import Claims, Forecast, NoRoom
from mmd.registry.licence import Terms
from mmd.registry.record import Format, ModelType
from tests.memory_leases import MemoryLeases

PATIENCE_SECONDS = 15.0  # timeout of a test, generous because machines are busy


@dataclass
class EngineRequest:
    """One request as an engine received it."""

    first_line: str
    headers: list[tuple[str, str]]
    body: bytes
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    @property
    def target(self) -> str:
        return self.first_line.split(" ")[1]

    def values(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key.lower() == name]

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def answer(self, body: bytes, *, status: str = "200 OK", extra: str = "") -> None:
        head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\n{extra}Content-Length: {len(body)}\r\n\r\n"
        await self.send(head.encode() + body)

    async def begin_stream(self, *pieces: bytes) -> None:
        head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
        await self.send(head + b"".join(chunk(piece) for piece in pieces))

    async def gone(self) -> None:
        """Wait until the other side has closed."""
        assert await self.reader.read(1) == b""

    def die(self) -> None:
        self.writer.transport.abort()


async def until(condition: Callable[[], bool]) -> None:
    """Wait for a state of the gateway that it does not announce."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not condition():  # noqa: ASYNC110 - every turn of the loop is looked at, so no moment is missed
            await asyncio.sleep(0)


Handler = Callable[[EngineRequest], Awaitable[None]]


def chunk(piece: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(piece), piece)


class Peer:
    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.address = str(folder / f"{name}.sock")
        self.on: dict[str, Handler] = {}
        self.requests: list[EngineRequest] = []
        self.arrived = asyncio.Condition()
        self.connections = 0
        self._open: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        self._server = await asyncio.start_unix_server(self._accept, self.address)

    async def stop(self) -> None:
        """Stop as a killed engine does: the socket's file stays and refuses connections."""
        if self._server is None:
            return
        self._server.close()
        self._server = None
        for writer in list(self._open):
            writer.transport.abort()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def has_received(self, times: int) -> None:
        async with asyncio.timeout(PATIENCE_SECONDS), self.arrived:
            await self.arrived.wait_for(lambda: len(self.requests) >= times)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._open.add(writer)
        task = asyncio.create_task(self._converse(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while not writer.is_closing():
                received = await self._read(reader, writer)
                async with self.arrived:
                    self.requests.append(received)
                    self.arrived.notify_all()
                await self.on.get(received.target, self._tell)(received)
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            self._open.discard(writer)
            writer.close()

    async def _read(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> EngineRequest:
        first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")[:-2]
        headers = [(name, value.strip()) for name, _, value in (line.partition(":") for line in lines)]
        received = EngineRequest(first, headers, b"", reader, writer)
        if length := received.values("content-length"):
            received.body = await reader.readexactly(int(length[0]))
        return received

    async def _tell(self, received: EngineRequest) -> None:
        told = {
            "peer": self.name,
            "first_line": received.first_line,
            "body": received.body.decode("latin-1")[:2000],
        }
        await received.answer(json.dumps(told).encode())


_MODEL = ModelInfo(
    id="",
    aliases=(),
    type=ModelType.CHAT,
    engine="llama.cpp",
    format=Format.GGUF,
    quant="Q4_K_M",
    vram=1.0,
    vram_bytes=1 << 30,
    context=4096,
    status="absent",
    startup=Startup.DISABLED,
    source="file",
    licence="",
    terms=Terms.UNKNOWN,
    path="/models/tiny.gguf",
    devices={},
)


@dataclass
class MemoryModels:
    """The `Models` of the gateway in memory: one model is resident; activation can be delayed or made to fail."""

    peers: dict[str, Peer]
    active: str | None = None
    embedding: str = "a"
    log: list[str] = field(default_factory=list)
    held: dict[str | None, asyncio.Event] = field(default_factory=dict)  # activation waits for it; None: suspending
    loading: set[str] = field(default_factory=set)
    failing: dict[str, Exception] = field(default_factory=dict)
    restarts: bool = False  # activation restarts a dead engine
    drain_seconds: float = 0.0  # of the last activation
    asleep: set[str] = field(default_factory=set)
    making_room: set[str] = field(default_factory=set)  # engines that end because of a swap
    listeners: list[Callable[[], None]] = field(default_factory=list)
    expected: dict[str, float] = field(default_factory=dict)  # duration of a swap, by model
    sleepy: set[str] = field(default_factory=set)  # models that can sleep
    unloading: dict[str | None, Callable[[], Awaitable[None]]] = field(default_factory=dict)  # called during a sleep
    rules: dict[str, Rules] = field(default_factory=dict)
    on_cpu: set[str] = field(default_factory=set)
    gone: list[str] = field(default_factory=list)  # the suspended models
    read_uses: Callable[[], Mapping[str, Use]] = dict
    looked: int = 0  # calls of `occupants`
    asked_last: str | None = None
    shown: Status | None = None  # a status that a test sets
    named_setups: dict[str, Setup] = field(default_factory=dict)
    leases: MemoryLeases = field(default_factory=MemoryLeases)
    since: float = field(default_factory=monotonic)  # when a model last became resident or fell asleep

    def find(self, name: str | None, listener_kind: ListenerKind = ListenerKind.MAIN) -> str:
        if not name and listener_kind is ListenerKind.EMBEDDING:
            return self.embedding
        if not name:
            if self.active is None and not self.gone:
                raise MmdError("no model is active", hint="mmd activate ID")
            return self.active or self.gone[0]
        if name not in self.peers:
            raise NoSuchModel(f"no model named {name}", hint="see the names: mmd list")
        return name

    def setup(self, name: str) -> Setup | None:
        return self.named_setups.get(name)

    def active_model(self) -> str | None:
        return self.active

    def asked(self, model_id: str) -> None:
        self.asked_last = model_id

    def address(self, model_id: str) -> str | None:
        return self.peers[model_id].address if model_id == self.active else None

    def is_asleep(self, model_id: str) -> bool:
        return model_id in self.asleep

    def expected_seconds(self, model_id: str) -> float | None:
        return self.expected.get(model_id)

    def follow(self, listener: Callable[[], None]) -> None:
        self.listeners.append(listener)

    def holders(self) -> Collection[str]:
        return {*self.loading, *([self.active] if self.active is not None else [])}

    def forecast(self, model_id: str, *, present: tuple[str, ...], claimed: Claims) -> Forecast | NoRoom:
        if claimed.keys() - set(present):
            return NoRoom(f"{model_id} does not fit beside others")
        return Forecast(frozenset(present), {"all": 1})

    async def prepare(self, model_id: str) -> None:
        pass

    def pinned(self) -> Collection[str]:
        return {name for name, rules in self.rules.items() if rules.pinned}

    def use_from(self, read: Callable[[], Mapping[str, Use]]) -> None:
        self.read_uses = read

    async def loaded_models(self, *, keep_alive: Collection[str]) -> Sequence[LoadedModel]:
        self.looked += 1
        names = [*self.asleep, *([self.active] if self.active else [])]
        return [LoadedModel(name, name in self.asleep, self.since, self.rules.get(name, Rules())) for name in names]

    async def sleep_is_looked_at(self) -> None:
        """Wait until the idle rules have been applied once more."""
        looked = self.looked
        for listener in self.listeners:
            listener()
        await until(lambda: self.looked > looked)
        await asyncio.sleep(0)

    async def was_evicted(self, model_id: str) -> bool:
        return model_id in self.making_room

    def swapped_away(self, model_id: str) -> None:
        """Another process put the model to sleep, and the watch has just seen it."""
        self.asleep.add(model_id)
        self.active = None
        self._tell()

    async def activate(
        self,
        model_id: str,
        *,
        drain_seconds: float,
        leavers: Collection[str] | None = None,
        devices: Collection[str] | None = None,
    ) -> None:
        self.drain_seconds = drain_seconds
        self.log.append(f"activate {model_id}")
        self.loading.add(model_id)
        if model_id in self.held:
            await self.held[model_id].wait()
        self.loading.discard(model_id)
        if model_id in self.failing:
            raise self.failing[model_id]
        if self.restarts:
            await self.peers[model_id].start()
        self.active = model_id
        self.asleep.discard(model_id)
        self.log.append(f"ready {model_id}")
        self._tell()

    async def would_unload(self, setup: Setup) -> Collection[str]:
        return [self.active] if self.active is not None and self.active not in setup.models else []

    async def activate_setup(self, setup: Setup, *, leavers: Collection[str]) -> None:
        self.log.append(f"activate {' + '.join(setup.models)}, unloading {', '.join(leavers) or 'none'}")
        if setup.name in self.failing:
            raise self.failing.pop(setup.name)
        self.active = setup.models[0]
        self._tell()

    def require_exposable(self, setup: Setup) -> None:
        if setup.expose and setup.name in self.failing:
            raise self.failing[setup.name]

    async def open_tunnels(self, setup: Setup) -> None:
        self.log.append(f"expose {', '.join(setup.expose) or 'none'}")

    async def close_tunnels(self, setup: Setup) -> None:
        self.log.append(f"hide {', '.join(setup.expose) or 'none'}")

    async def sleep(self, model_id: str | None, level: int | None = None) -> tuple[str, ...]:
        self.log.append(f"sleep {model_id}" + (f" at {level}" if level is not None else ""))
        if model_id in self.unloading:
            await self.unloading[model_id]()
        if model_id in self.failing:
            raise self.failing[model_id]
        gone, self.active = self.active, None
        if gone in self.sleepy:
            self.asleep.add(gone)
        self._tell()
        return () if gone is None else (gone,)

    async def stop(self, model_id: str | None) -> None:
        self.log.append(f"stop {model_id}")
        self.active = None
        self._tell()

    async def stop_asleep(self, model_id: str) -> None:
        self.log.append(f"stop asleep {model_id}")
        self.asleep.discard(model_id)
        self._tell()

    async def on_gpu(self) -> Collection[str]:
        return {self.active or "", *self.loading} - {"", *self.on_cpu}

    def suspended(self) -> Sequence[str]:
        return self.gone

    async def suspend(self, *, drain_seconds: float) -> None:
        self.log.append("put away")
        self.gone = list(dict.fromkeys((*await self.on_gpu(), *self.gone)))
        if None in self.held:
            await self.held[None].wait()
        self.loading.clear()
        self.active = None
        self._tell()

    async def restore(self, model_ids: Sequence[str]) -> None:
        names = tuple(model_ids)
        self.log.append(" ".join(("bring back", *names)))
        for model_id in names:
            if self.active is None:
                await self.activate(model_id, drain_seconds=0.0)
        self.gone = [model_id for model_id in self.gone if model_id not in names]

    def _tell(self) -> None:
        """Notify listeners, as the watch does after a change."""
        self.since = monotonic()
        for listener in self.listeners:
            listener()

    async def status(self) -> Status:
        return self.shown or Status(
            active=self.active,
            resident=(Resident(self.active, "chat", "llama-server", {}, {}, None),) if self.active else (),
            sleeping=(),
            starting=(),
            stranded=(),
            failed=(),
            away=tuple(self.gone),
            leases=(),
            exposed=(),
            unloaded=(),
            devices=(),
            resources=await self.resources(),
        )

    async def models(self) -> list[ModelInfo]:
        return [replace(_MODEL, id=name, status="active" if name == self.active else "absent") for name in self.peers]

    async def setups(self) -> list[SetupInfo]:
        return [setup_info(setup, {}, {}) for setup in self.named_setups.values()]

    async def resources(self) -> Resources:
        return Resources(Memory.of(0, 0), Memory.of(1, 2), ())


@dataclass
class ReceivedResponse:
    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class RawClient:
    """A connection on which a test controls every byte."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def ask(self, data: bytes) -> ReceivedResponse:
        await self.send(data)
        return await self.answer()

    async def head(self) -> tuple[int, dict[str, str]]:
        async with asyncio.timeout(PATIENCE_SECONDS):
            first, *lines = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")[:-2]
        pairs = (line.split(": ", 1) for line in lines)
        return int(first.split(" ")[1]), {name.lower(): value for name, value in pairs}

    async def answer(self) -> ReceivedResponse:
        status, headers = await self.head()
        async with asyncio.timeout(PATIENCE_SECONDS):
            if "content-length" in headers:
                return ReceivedResponse(status, headers, await self.reader.readexactly(int(headers["content-length"])))
            body = b""
            while piece := await self._chunk():
                body += piece
        return ReceivedResponse(status, headers, body)

    async def chunk(self) -> bytes:
        async with asyncio.timeout(PATIENCE_SECONDS):
            return await self._chunk()

    async def _chunk(self) -> bytes:
        size = int(await self.reader.readline(), 16)
        return (await self.reader.readexactly(size + 2))[:-2]

    async def rest(self) -> bytes:
        """Read until the gateway closes."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            return await self.reader.read()

    def disconnect(self) -> None:
        self.writer.transport.abort()


def post(body: bytes | dict[str, Any], path: str = "/v1/chat/completions", *extra: str) -> bytes:
    payload = json.dumps(body).encode() if isinstance(body, dict) else body
    lines = [f"POST {path} HTTP/1.1", "Host: localhost", *extra, f"Content-Length: {len(payload)}", "", ""]
    return "\r\n".join(lines).encode() + payload


@dataclass
class Harness:
    """A running gateway, its engines and its models."""

    gateway: Gateway
    models: MemoryModels
    port: int
    server: asyncio.Server
    clients: list[RawClient] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def peer(self, name: str) -> Peer:
        return self.models.peers[name]

    async def client(self) -> RawClient:
        client = RawClient(*await asyncio.open_connection("127.0.0.1", self.port))
        self.clients.append(client)
        return client


@asynccontextmanager
async def harness(
    *names: str,
    active: str | None = "a",
    limits: Limits | None = None,
    policy: RequestPolicy | None = None,
    listener_kind: ListenerKind = ListenerKind.MAIN,
    hub: Hub | None = None,
) -> AsyncIterator[Harness]:
    """Run a gateway on a port of 127.0.0.1, with one engine for each name."""
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))  # tmp_path can be too long for a socket
        peers = {name: Peer(name, folder) for name in names or ("a",)}
        for peer in peers.values():
            await peer.start()
            stack.push_async_callback(peer.stop)
        models = MemoryModels(peers, active=active)
        gateway = Gateway(models, limits or Limits(min_residency_seconds=0), policy, hub=hub)
        gateway.observe()
        new_connection = partial(gateway.new_connection, listener_kind)
        server = await asyncio.get_running_loop().create_server(new_connection, "127.0.0.1", 0)
        unloading = asyncio.create_task(gateway.idle.run())
        running = Harness(gateway, models, server.sockets[0].getsockname()[1], server)
        await until(lambda: models.looked > 0)  # the idle rules have run once, before the test changes the clock
        try:
            yield running
        finally:
            unloading.cancel()
            with suppress(asyncio.CancelledError):  # only this one
                await unloading
            server.close()
            for client in running.clients:
                client.disconnect()
            await gateway.drain(PATIENCE_SECONDS)
