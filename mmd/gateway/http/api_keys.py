"""API keys, as a file of their hashes: who has one, for what, since when."""

from __future__ import annotations

import hashlib
import re
import time
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from mmd.atomic import write_atomically
from mmd.errors import StorageFailed, WrongUsage
from mmd.files import locked
from mmd.paths import keys_file

_PREFIX = "mmd-"  # so that scanners for leaked secrets can know one
_KEY_BYTES = 32
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_HEADER = """\
# Who may use the gateway, written by `mmd key add` and `mmd key remove`. The keys themselves are not
# in here, and cannot be had from it.

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
    """What is kept of a key.

    SHA-256 and nothing slower: a key is 256 random bits, which nobody can guess however fast they try, and it is
    hashed for every request. scrypt and the like are for words that people think of.
    """
    return hashlib.sha256(key.encode() if isinstance(key, str) else key).digest()


class KeyFile:
    """The file. Reads without a lock (it is only ever replaced whole), writes under one."""

    def __init__(self, file: Path | None = None) -> None:
        self.file = file or keys_file()

    def all(self) -> tuple[ApiKey, ...]:
        """By name. Raises StorageFailed where the file cannot be read, WrongUsage where it is damaged."""
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
        """Make a key. It is returned here and kept nowhere. Raises WrongUsage where the name is taken or is none."""
        if not _NAME.fullmatch(name):
            message = f"{name!r} is no name for a key: letters, digits, dots, dashes and underscores are"
            raise WrongUsage(message, hint="mmd key add laptop")
        from secrets import token_urlsafe  # which the gateway, that only reads keys, need not load

        made = _PREFIX + token_urlsafe(_KEY_BYTES)
        with self._locked():
            keys = self.all()
            if any(key.name == name for key in keys):
                raise WrongUsage(f"there is a key {name} already", hint=f"mmd key remove {name}   # or another name")
            now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
            self._write((*keys, ApiKey(name, purpose, now, digest(made))))
        return made

    def remove(self, name: str, *, last_too: bool) -> ApiKey:
        """Have a key accepted no more. Raises WrongUsage where there is none of this name, and, unless `last_too`,
        where it is the only one.
        """
        with self._locked():
            keys = self.all()
            gone = next((key for key in keys if key.name == name), None)
            if gone is None:
                raise WrongUsage(f"there is no key {name}", hint="mmd key list   # see the names")
            if len(keys) == 1 and not last_too:
                message = f"{name} is the only key, and the gateway is to listen where other machines reach it"
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
        """One writer at a time: `mmd key add` of two people at once must not lose the key of one."""
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


def _parsed(document: Mapping[str, object]) -> Iterator[ApiKey]:
    tables = document.get("keys", {})
    if not isinstance(tables, dict):
        raise ValueError("keys must be tables, [keys.NAME]")
    for name, table in tables.items():
        if not isinstance(table["sha256"], str) or not _SHA256.fullmatch(table["sha256"]):
            raise ValueError(f"keys.{name}.sha256 must be 64 hexadecimal digits")
        yield ApiKey(name, Purpose(table["for"]), str(table["made"]), bytes.fromhex(table["sha256"]))
