"""The HTTP client for Unix sockets."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from mmd.gateway.observe.unix_http import request


@asynccontextmanager
async def server(path: Path, response: bytes) -> AsyncIterator[list[bytes]]:
    """Listen on `path`, record each request, and send `response`."""
    requests: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        requests.append(await reader.read(1 << 16))
        writer.write(response)
        writer.close()

    listening = await asyncio.start_unix_server(serve, path)
    try:
        yield requests
    finally:
        listening.close()


@pytest.fixture
def socket_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("s") / "s"  # short: a socket's path may have 107 bytes


@pytest.mark.parametrize(
    "response",
    [
        b"HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n1\r\no\r\n1\r\nk\r\n0\r\n\r\n",
    ],
)
async def test_response_is_read_to_its_end(socket_path: Path, response: bytes) -> None:
    async with server(socket_path, response) as requests:
        read = await request(socket_path, "POST", "/models", b"{}")
    assert (read.status, bytes(read.body), read.server_pid) == (201, b"ok", os.getpid())
    assert requests[0].startswith(b"POST /models HTTP/1.1\r\n") and requests[0].endswith(b"\r\n\r\n{}")


@pytest.mark.parametrize(
    ("response", "error"),
    [
        (b"", ConnectionResetError),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort", ConnectionResetError),
        (b"not HTTP\r\n\r\n", ValueError),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n" + b"x" * 99, ValueError),
    ],
)
async def test_bad_responses(socket_path: Path, response: bytes, error: type[Exception]) -> None:
    async with server(socket_path, response):
        with pytest.raises(error):
            await request(socket_path, "GET", "/", max_bytes=50)


async def test_missing_server(socket_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        await request(socket_path, "GET", "/")
