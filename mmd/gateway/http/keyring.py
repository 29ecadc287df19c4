"""The API keys as a running gateway knows them."""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Iterator
from time import monotonic

from mmd.files import ReloadOnChange
from mmd.gateway.http.api_keys import ApiKey, KeyFile, Purpose, digest
from mmd.gateway.http.request import RequestHead

_STAT_SECONDS = 1.0  # how late a change may be noticed


class Keyring:
    """The keys in the file, read again when it changes. The first read raises what `KeyFile.all` raises; if the file is
    damaged later, the keys stay as they were.
    """

    def __init__(self, keys: KeyFile | None = None, *, stat_seconds: float = _STAT_SECONDS) -> None:
        file = keys or KeyFile()
        self._stat_seconds = stat_seconds
        self._file = ReloadOnChange(file.file, file.all, keeps="the API keys")
        self._keys = self._file.current()
        self._looked = monotonic()

    def current(self) -> tuple[ApiKey, ...]:
        """Those that hold now; without a system call most of the time."""
        now = monotonic()
        if now - self._looked >= self._stat_seconds:
            self._looked = now
            self._keys = self._file.current()
        return self._keys

    def purpose_of(self, head: RequestHead) -> Purpose | None:
        """What the key in a request is for, the greatest purpose of several; None where it has none of ours."""
        purposes = {key.purpose for presented in _presented(head) for key in self._matching(digest(presented))}
        if Purpose.MANAGEMENT in purposes:
            return Purpose.MANAGEMENT
        return Purpose.INFERENCE if purposes else None

    def _matching(self, sha256: bytes) -> Iterator[ApiKey]:
        return (key for key in self.current() if hmac.compare_digest(key.sha256, sha256))


def _presented(head: RequestHead) -> Iterator[bytes]:
    """What a client offers as a key: OpenAI's way, Anthropic's, or typed into a browser's window as a password."""
    for value in head.gateway_headers.get(b"authorization", ()):
        scheme, _, credentials = value.partition(b" ")
        if scheme.lower() == b"bearer":
            yield credentials.strip()
        elif scheme.lower() == b"basic":
            yield _password(credentials.strip())
    yield from head.gateway_headers.get(b"x-api-key", ())


def _password(credentials: bytes) -> bytes:
    try:
        return base64.b64decode(credentials, validate=True).partition(b":")[2]
    except binascii.Error:
        return b""
