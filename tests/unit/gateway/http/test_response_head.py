"""Edits of a response's head on its way to the client."""

from __future__ import annotations

import pytest

from mmd.gateway.http.response_head import ResponseWriter, with_connection_close

_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\n"
_EARLY_HINTS = b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"


def test_unedited_response_goes_straight_to_the_transport() -> None:
    written: list[bytes] = []
    write = written.append
    assert ResponseWriter(write).write is write


def test_both_edits_apply_to_the_next_head_only() -> None:
    written: list[bytes] = []
    write = written.append
    writer = ResponseWriter(write)
    writer.allow_origin(b"http://a")
    writer.announce_close()
    assert not writer.has_announced_close
    writer.write(_HEAD + b"a")
    head, _, body = written.pop().partition(b"\r\n\r\n")
    assert head.split(b"\r\n")[1] == b"connection: close"
    assert b"access-control-allow-origin: http://a" in head.split(b"\r\n")
    assert (body, writer.has_announced_close, writer.write) == (b"a", True, write)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (_HEAD, _HEAD.replace(b"OK\r\n", b"OK\r\nconnection: close\r\n")),
        (_EARLY_HINTS + _HEAD, _EARLY_HINTS + _HEAD.replace(b"OK\r\n", b"OK\r\nconnection: close\r\n")),
        (b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\r\n",) * 2,
    ],
)
def test_close_is_announced_in_the_final_head(before: bytes, after: bytes) -> None:
    assert with_connection_close(before) == after
