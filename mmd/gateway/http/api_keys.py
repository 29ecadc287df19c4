"""API keys: the file with their hashes, and the keys that a running gateway accepts."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
import time
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from time import monotonic

from mmd.atomic import write_atomically
from mmd.errors import StorageFailed, WrongUsage
from mmd.files import ReloadOnChange, locked
from mmd.gateway.http.request import RequestHead
from mmd.paths import keys_file

_PREFIX = "mmd-"  # lets scanners for leaked secrets recognise a key
_KEY_BYTES = 32
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_STAT_SECONDS = 1.0  # between two looks at the file: how late a change may be noticed
_SHA256 = re.compile(r"[0-9a-f]{64}")
_HEADER = """\
# The API keys of the gateway, written by `mmd key add` and `mmd key remove`. This file holds hashes, from which
# the keys cannot be recovered.

"""


class Purpose(StrEnum):
    INFERENCE = "inference"  # /v1/…
    MANAGEMENT = "management"  # everything


@dataclass(frozen=True, slots=True)
class ApiKey:
    name: str
    purpose: Purpose
    made: str  # ISO 8601, UTC
    sha256: bytes


def digest(key: str | bytes) -> bytes:
    """Return the hash that is stored for a key.

    SHA-256, not a slow hash such as scrypt: a key has 256 random bits, which cannot be guessed at any speed, and it is
    hashed for every request. Slow hashes protect passwords that people choose.
    """
    return hashlib.sha256(key.encode() if isinstance(key, str) else key).digest()


class KeyFile:
    """The file of keys. It is replaced as a whole, so reading needs no lock; writing holds one."""

    def __init__(self, file: Path | None = None) -> None:
        self.file = file or keys_file()

    def all(self) -> tuple[ApiKey, ...]:
        """Return the keys, by name. Raises StorageFailed if the file cannot be read, WrongUsage if it is damaged."""
        try:
            text = self.file.read_text("utf-8")
        except FileNotFoundError:
            return ()
        except OSError as error:
            raise self._failed("read", error) from error
        except UnicodeDecodeError as error:
            raise self._damaged("it is not UTF-8") from error
        try:
            return tuple(sorted(_parsed(tomllib.loads(text)), key=lambda key: key.name))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise self._damaged(str(error)) from error

    def add(self, name: str, purpose: Purpose) -> str:
        """Make a key and return it; only its hash is stored. Raises WrongUsage if the name is taken or invalid."""
        if not _NAME.fullmatch(name):
            message = f"{name!r} is not a valid key name: use letters, digits, dots, dashes and underscores"
            raise WrongUsage(message, hint="mmd key add laptop")
        from secrets import token_urlsafe  # here: the gateway only reads keys, and saves the memory

        made = _PREFIX + token_urlsafe(_KEY_BYTES)
        with self._locked():
            keys = self.all()
            if any(key.name == name for key in keys):
                raise WrongUsage(
                    f"a key named {name} already exists", hint=f"mmd key remove {name}   # or use another name"
                )
            now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
            self._write((*keys, ApiKey(name, purpose, now, digest(made))))
        return made

    def remove(self, name: str, *, last_too: bool) -> ApiKey:
        """Remove a key and return its record. Raises WrongUsage if no key has this name, and, unless `last_too`, if it
        is the last one.
        """
        with self._locked():
            keys = self.all()
            gone = next((key for key in keys if key.name == name), None)
            if gone is None:
                raise WrongUsage(f"no key is named {name}", hint="mmd key list   # shows the names")
            if len(keys) == 1 and not last_too:
                message = f"{name} is the only key, and the gateway listens on an address that other machines can reach"
                raise WrongUsage(message, hint=f"mmd key add OTHER   # first; then: mmd key remove {name}")
            self._write(key for key in keys if key is not gone)
        return gone

    def _write(self, keys: Iterator[ApiKey] | tuple[ApiKey, ...]) -> None:
        import tomlkit

        tables = {key.name: {"for": key.purpose, "made": key.made, "sha256": key.sha256.hex()} for key in keys}
        try:
            write_atomically(self.file, (_HEADER + tomlkit.dumps({"keys": tables})).encode(), mode=0o600)
        except OSError as error:
            raise self._failed("written", error) from error

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Allow one writer at a time: of two `mmd key add` at once neither may lose its key."""
        try:
            lock = locked(self.file.with_suffix(".lock"))
        except OSError as error:
            raise self._failed("written", error) from error
        with lock:
            yield

    def _failed(self, done: str, error: OSError) -> StorageFailed:
        return StorageFailed(f"{self.file} cannot be {done}: {error.strerror}", hint=f"ls -l {self.file}")

    def _damaged(self, reason: str) -> WrongUsage:
        hint = f"rm {self.file}   # then make new keys: mmd key add NAME"
        return WrongUsage(f"{self.file} is damaged: {reason}", hint=hint)


def require_key_to_expose() -> None:
    """Raise WrongUsage without an API key: an exposed model is reachable from the internet."""
    if not KeyFile().all():
        message = "an exposed model is reachable by everyone, and the gateway has no API keys"
        raise WrongUsage(message, hint="mmd key add NAME   # prints a key for your clients")


class Keyring:
    """The keys that a running gateway accepts: those of the file, read again when it changes.

    Creating it raises what `KeyFile.all` raises. If the file is damaged later, the keys stay as they are.
    """

    def __init__(self, keys: KeyFile | None = None, *, stat_seconds: float = _STAT_SECONDS) -> None:
        file = keys or KeyFile()
        self._stat_seconds = stat_seconds
        self._file = ReloadOnChange(file.file, file.all, keeps="the API keys")
        self._keys = self._file.current()
        self._looked_at = monotonic()

    def current(self) -> tuple[ApiKey, ...]:
        """Return the keys; most calls make no system call."""
        now = monotonic()
        if now - self._looked_at >= self._stat_seconds:
            self._looked_at = now
            self._keys = self._file.current()
        return self._keys

    def purpose_of(self, head: RequestHead) -> Purpose | None:
        """Return the purpose of the request's key, the widest of several; None if it has no valid key."""
        purposes = {key.purpose for presented in _presented(head) for key in self._matching(digest(presented))}
        if Purpose.MANAGEMENT in purposes:
            return Purpose.MANAGEMENT
        return Purpose.INFERENCE if purposes else None

    def _matching(self, sha256: bytes) -> Iterator[ApiKey]:
        return (key for key in self.current() if hmac.compare_digest(key.sha256, sha256))


def _parsed(document: Mapping[str, object]) -> Iterator[ApiKey]:
    tables = document.get("keys", {})
    if not isinstance(tables, dict):
        raise ValueError("keys must be tables, [keys.NAME]")  # noqa: TRY004 wrong content
    for name, table in tables.items():
        if not isinstance(table["sha256"], str) or not _SHA256.fullmatch(table["sha256"]):
            raise ValueError(f"keys.{name}.sha256 must be 64 hexadecimal digits")
        yield ApiKey(name, Purpose(table["for"]), str(table["made"]), bytes.fromhex(table["sha256"]))


def _presented(head: RequestHead) -> Iterator[bytes]:
    """Yield the keys in a request: as OpenAI's clients send them, as Anthropic's do, or as a browser's password."""
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
