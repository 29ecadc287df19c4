"""Parts of a file over HTTP: requested as a byte range, and checked before one of the bytes counts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any


class BadRangeResponse(Exception):
    """A response is not the part of the file that was requested; the text says why."""


@dataclass(frozen=True, slots=True)
class ByteRange:
    """Bytes `begin` up to, but without, `end` of a file of `size_bytes`."""

    begin: int
    end: int
    size_bytes: int

    @property
    def is_whole_file(self) -> bool:
        return (self.begin, self.end) == (0, self.size_bytes)


def request_range(
    url: str, part: ByteRange, headers: Mapping[str, str], *, timeout_seconds: float
) -> AbstractContextManager[Any]:
    """Request a part of a file. Nothing of the response has been checked, not even its status."""
    from huggingface_hub.utils import get_session  # type: ignore[attr-defined]

    asked = {**headers, "Range": f"bytes={part.begin}-{part.end - 1}", "Accept-Encoding": "identity"}
    response: AbstractContextManager[Any] = get_session().stream("GET", url, headers=asked, timeout=timeout_seconds)
    return response


def content(response: Any, part: ByteRange) -> Iterator[bytes]:
    """Yield the part in chunks. Raises BadRangeResponse, and what the HTTP library raises if the connection breaks."""
    _require_part(response, part)
    missing_bytes = part.end - part.begin
    for chunk in response.iter_raw():
        if len(chunk) > missing_bytes:
            raise BadRangeResponse("is longer than requested")
        missing_bytes -= len(chunk)
        yield chunk
    if missing_bytes:
        raise BadRangeResponse(f"ends {missing_bytes:,} bytes early")


def _require_part(response: Any, part: ByteRange) -> None:
    if response.headers.get("Content-Encoding", "identity") != "identity":
        raise BadRangeResponse("is compressed")
    if response.status_code == 200:
        if part.is_whole_file:
            return
        raise BadRangeResponse("is the whole file (status 200)")
    sent = response.headers.get("Content-Range", "missing")
    wanted = f"bytes {part.begin}-{part.end - 1}/{part.size_bytes}"
    if response.status_code != 206 or sent != wanted:
        raise BadRangeResponse(f"is Content-Range: {sent} instead of {wanted}, status {response.status_code}")
