"""Activations through the gateway: its responses and errors."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from mmd import __version__, errors
from mmd.cli.via_gateway import activate_by_gateway
from mmd.control.install.presence import Presence
from mmd.errors import EngineFailed, GpuLeased, MmdError, NoSuchModel, TryLater, from_record
from mmd.gateway.http.error import INTERNAL, ErrorResponse
from mmd.paths import gateway_socket

_KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, MmdError)]


@pytest.mark.parametrize("kind", _KINDS)
def test_error_comes_out_as_it_went_in(kind: Callable[..., MmdError]) -> None:
    sent = ErrorResponse.of(kind("what is", hint="what to do"))
    read = from_record(json.loads(sent.payload())["error"])
    assert read is not None and (type(read), read.message, read.hint) == (kind, "what is", "what to do")


def test_error_brings_the_engines_lines() -> None:
    sent = ErrorResponse.of(EngineFailed("what is", hint="what to do", engine_lines=("one", "two")))
    read = from_record(json.loads(sent.payload())["error"])
    assert isinstance(read, EngineFailed) and read.engine_lines == ("one", "two")


@pytest.mark.parametrize("error", [None, "x", {}, {"code": "invalid_api_key"}, json.loads(INTERNAL.payload())["error"]])
def test_error_of_the_request_is_not_one_of_the_activation(error: object) -> None:
    assert from_record(error) is None


@asynccontextmanager
async def _gateway(answer: bytes, monkeypatch: pytest.MonkeyPatch, folder: str) -> AsyncIterator[list[bytes]]:
    """Run a gateway with this response."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", folder)
    asked: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"}"))
        writer.write(answer)
        writer.close()

    presence = Presence()
    presence.announce(__version__)
    server = await asyncio.start_unix_server(serve, gateway_socket())
    try:
        yield asked
    finally:
        server.close()
        presence.withdraw()


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tmp_path_factory.mktemp("r"))  # short: a socket's path may have 107 bytes


async def test_activation_is_asked_for_and_its_error_raised(monkeypatch: pytest.MonkeyPatch, folder: str) -> None:
    refusal = ErrorResponse.of(NoSuchModel("no model", hint="mmd list")).response(close=True)
    async with _gateway(refusal, monkeypatch, folder) as asked:
        with pytest.raises(NoSuchModel, match="no model"):
            await activate_by_gateway("ä", ("ä",))
    assert asked[0].startswith(b"POST /models/activate HTTP/1.1\r\n")
    assert json.loads(asked[0].partition(b"\r\n\r\n")[2]) == {"model": "ä"}


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{",
        b"nonsense\r\n\r\n{}",
        INTERNAL.response(close=True),
        ErrorResponse.of(TryLater("full", hint="wait")).response(close=True),
        b"HTTP/1.1 404 Not Found\r\n\r\n{}",
    ],
)
async def test_gateway_without_an_answer_leaves_it_to_the_command(
    answer: bytes, monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    async with _gateway(answer, monkeypatch, folder) as asked:
        assert await activate_by_gateway("a", ("a",)) is None
    assert len(asked) == 1


async def test_command_does_not_retry_what_a_lease_refuses(monkeypatch: pytest.MonkeyPatch, folder: str) -> None:
    """If the lease had ended meanwhile, the command would cut the responses that the gateway lets finish."""
    refusal = ErrorResponse.of(GpuLeased("no room beside a lease", hint="mmd lease list")).response(close=True)
    async with _gateway(refusal, monkeypatch, folder):
        with pytest.raises(GpuLeased):
            await activate_by_gateway("a", ("a",))


async def test_no_request_is_sent_without_a_gateway() -> None:
    assert await activate_by_gateway("a", ("a",)) is None
