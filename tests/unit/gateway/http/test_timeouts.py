"""Incomplete requests, too many connections, and other users on the Unix socket."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from pathlib import Path

import pytest

from mmd.gateway.gateway import Gateway
from mmd.gateway.http import sockets
from mmd.gateway.http.limits import Limits
from mmd.gateway.http.listener_kind import ListenerKind
from mmd.gateway.http.timeouts import ReadTimeouts
from tests.gateway_peer import PATIENCE_SECONDS, RawClient, harness, post, until

_SHORT = Limits(head_seconds=0.05, body_seconds=0.05)
_BEGUN = b"POST /v1/x HTTP/1.1\r\nHost: localhost\r\n"


@pytest.mark.parametrize(
    "begun",
    [
        b"P",
        _BEGUN,
        _BEGUN + b"Content-Length: 5\r\n\r\n{}",
        _BEGUN + b"Transfer-Encoding: chunked\r\n\r\n5\r\n{}",
        _BEGUN + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n",
        _BEGUN + b"Expect: 100-continue\r\nContent-Length: 5\r\n\r\n",
        post({"model": "a"}, "/v1/x") + _BEGUN,  # after a complete one
    ],
)
async def test_incomplete_request_times_out(begun: bytes) -> None:
    async with harness(limits=_SHORT) as running:
        client = await running.client()
        await client.send(begun)
        answers = (await client.rest()).split(b"HTTP/1.1 ")[1:]
        assert answers[-1].startswith(b"408 ")
        assert b'"request_timeout"' in answers[-1] and b"connection: close" in answers[-1]
        assert len(running.peer("a").requests) == begun.count(b"model")


class _Sender:
    awaits_more = True
    is_timed_out = False

    def time_out(self) -> None:
        self.is_timed_out = True


async def test_deadline_of_a_head_is_fixed() -> None:
    read_timeouts, sender = ReadTimeouts(_SHORT), _Sender()
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not sender.is_timed_out:
            read_timeouts.expect_more(sender, of_head=True)
            await asyncio.sleep(0)
    read_timeouts.close()


async def test_deadline_of_a_body_moves_with_each_piece() -> None:
    read_timeouts, sender = ReadTimeouts(Limits()), _Sender()
    read_timeouts.expect_more(sender, of_head=False)
    before = read_timeouts.deadline(sender)
    read_timeouts.expect_more(sender, of_head=False)
    after = read_timeouts.deadline(sender)
    assert before is not None and after is not None and after > before
    read_timeouts.close()


async def test_clients_waiting_for_a_response_do_not_time_out() -> None:
    """The timeout applies to incomplete requests only: not to slow responses, nor to idle connections."""
    async with harness(limits=_SHORT) as running:
        waiting, idle, watched = await running.client(), await running.client(), await running.client()
        held = asyncio.Event()
        running.models.active, running.models.held["a"] = None, held
        await waiting.send(post({"model": "a"}) + _BEGUN)  # and the next request has begun
        await watched.send(_BEGUN)
        assert (await watched.answer()).status == 408
        held.set()
        assert (await waiting.answer()).status == 200
        assert (await idle.ask(post({"model": "a"}))).status == 200


async def test_no_timer_runs_without_incomplete_requests() -> None:
    async with harness(limits=Limits(body_seconds=0.05)) as running:
        client = await running.client()
        await client.send(_BEGUN)
        await client.ask(b"Content-Length: 13\r\n\r\n" + b'{"model":"a"}')
        await until(lambda: running.gateway.read_timeouts.is_idle)


async def test_connection_over_the_limit_replaces_an_idle_one() -> None:
    async with harness(limits=Limits(connections=2)) as running:
        busy, idle = await running.client(), await running.client()
        await busy.send(_BEGUN)
        assert (await idle.ask(post({"model": "a"}))).status == 200
        third = await running.client()
        assert (await third.ask(post({"model": "a"}))).status == 200
        assert await idle.rest() == b""
        await third.send(_BEGUN)
        await until(lambda: all(not new_connection.is_idle for new_connection in running.gateway.connections))
        fourth = await running.client()
        refused = await fourth.answer()
        assert (refused.status, refused.json()["error"]["code"]) == (503, "too_many_connections")
        assert refused.headers["retry-after"] == "1"
        assert (await busy.ask(b"Content-Length: 13\r\n\r\n" + b'{"model":"a"}')).status == 200


async def test_simultaneous_connections_count() -> None:
    async with harness(limits=Limits(connections=5)) as running:
        clients = [await running.client() for _ in range(5)]
        await asyncio.gather(*(client.send(_BEGUN) for client in clients))
        await until(lambda: sum(not new_connection.is_idle for new_connection in running.gateway.connections) == 5)
        late = await asyncio.gather(*(running.client() for _ in range(20)))
        assert [(await client.answer()).status for client in late] == [503] * 20
        assert len(running.gateway.connections) == 5


async def test_unix_socket_is_exempt_from_the_limit(tmp_path: Path) -> None:
    async with harness(limits=Limits(connections=1)) as running:
        busy = await running.client()
        await busy.send(_BEGUN)
        await until(lambda: any(not new_connection.is_idle for new_connection in running.gateway.connections))
        client, server = await _locally(running.gateway, tmp_path)
        assert (await client.ask(post({"model": "a"}))).status == 200
        client.disconnect()
        server.close()


async def _locally(gateway: Gateway, folder: Path) -> tuple[RawClient, asyncio.Server]:
    path = str(folder / "s")[-100:]
    server = await asyncio.get_running_loop().create_unix_server(
        lambda: gateway.new_connection(ListenerKind.LOCAL), path
    )
    return RawClient(*await asyncio.open_unix_connection(path)), server


async def test_other_user_on_the_unix_socket_is_closed_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mmd.gateway.connection.is_other_user", lambda connected: True)
    async with harness() as running:
        client, server = await _locally(running.gateway, tmp_path)
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await client.ask(post({"model": "a"}))
        client.disconnect()
        server.close()
        assert running.peer("a").requests == []


class _Connected:
    """A socket with these peer credentials."""

    def __init__(self, uid: int) -> None:
        self._credentials = struct.pack("3i", 4711, uid, uid)

    def getsockopt(self, level: int, option: int, size: int) -> bytes:
        assert (level, option, size) == (socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        return self._credentials


def test_user_and_root_are_accepted(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert [sockets.is_other_user(_Connected(uid)) for uid in (0, 1000, 1001)] == [False, False, True]  # type: ignore[arg-type]
    assert "user 1001" in caplog.text and "4711" in caplog.text


def test_peer_credentials_come_from_the_kernel() -> None:
    one, other = socket.socketpair()
    with one, other:
        assert not sockets.is_other_user(one)
