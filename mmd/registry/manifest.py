"""Manifests: the size and sha256 that each file of a model must have, so that no verification needs the hub."""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from shlex import quote

from mmd import paths
from mmd.atomic import write_atomically
from mmd.codec import BadRecord, decode, encode, require_counts
from mmd.errors import StorageFailed
from mmd.files import keep_aside
from mmd.registry.companions import files_of
from mmd.registry.record import Model

_SHA256 = re.compile(r"[0-9a-f]{64}")

_log = logging.getLogger(__name__)


class Origin(StrEnum):
    """Where the hash of a file comes from."""

    HUB = "hub"
    HERE = "here"  # computed from the file on this disk, which was trusted then


@dataclass(frozen=True, slots=True)
class Entry:
    """The size and hash that one file must have; without a hash, the file was never hashed."""

    size_bytes: int
    sha256: str | None = None
    origin: Origin | None = None
    since: str | None = None  # when the hash was recorded: ISO 8601, UTC

    def __post_init__(self) -> None:
        require_counts(self, "size_bytes")
        if self.sha256 is not None and not _SHA256.fullmatch(self.sha256):
            raise ValueError(f"{self.sha256[:80]!r} is not a sha256")

    @classmethod
    def learned(cls, size_bytes: int, sha256: str, origin: Origin) -> Entry:
        """Return an entry whose hash is recorded now."""
        return cls(size_bytes, sha256.lower(), origin, time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()))


Manifest = Mapping[str, Entry]  # by absolute path


@dataclass(frozen=True, slots=True)
class _ManifestFile:
    files: Mapping[str, Entry]
    model: str = ""  # an archive has none


def file_for(model_id: str) -> Path:
    return paths.manifests_dir() / f"{model_id}.json"


def read(model_id: str) -> Manifest:
    """Return the manifest of a model, empty if it has none. A damaged one is kept aside, with a warning.

    Raise StorageFailed if it cannot be read.
    """
    file = file_for(model_id)
    try:
        return parse(file.read_bytes())
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise StorageFailed(f"{file} cannot be read: {error.strerror}", hint=f"ls -l {quote(str(file))}") from error
    except BadRecord as error:
        _set_aside(file, error)
        return {}


def write(model: Model, sha256: Mapping[str, str], origin: Origin = Origin.HUB) -> None:
    """Record the hashes in `sha256`, by absolute path as in `companions.files_of`.

    A file without one there keeps its entry; a file without an entry gets one with its size. Raise StorageFailed.
    """
    known = read(model.id)
    entries: dict[str, Entry] = {}
    for path in files_of(model):
        if path in sha256:
            entries[path] = Entry.learned(_size_bytes(path), sha256[path], origin)
        elif path in known:
            entries[path] = known[path]
        elif os.path.exists(path):  # noqa: PTH110  a string, as the record has it
            entries[path] = Entry(_size_bytes(path))
    write_entries(model.id, entries)


def write_entries(model_id: str, entries: Manifest) -> None:
    """Replace a whole manifest. Raise StorageFailed."""
    file = file_for(model_id)
    try:
        write_atomically(file, render(entries, model_id))
    except OSError as error:
        raise StorageFailed(
            f"{file} cannot be written: {error.strerror}",
            hint=f"ls -ld {quote(str(file.parent))}; df -h {quote(str(paths.data_dir()))}",
        ) from error


def forget(model_id: str) -> None:
    """Delete a manifest. Raise StorageFailed."""
    file = file_for(model_id)
    try:
        file.unlink(missing_ok=True)
    except OSError as error:
        raise StorageFailed(
            f"{file} cannot be removed: {error.strerror}", hint=f"ls -ld {quote(str(file.parent))}"
        ) from error


def _size_bytes(path: str) -> int:
    try:
        return Path(path).stat().st_size
    except OSError as error:
        raise StorageFailed(f"{path} cannot be read: {error.strerror}", hint=f"ls -lL {quote(path)}") from error


def render(entries: Manifest, model_id: str = "") -> bytes:
    """Return the text of a manifest: by the paths of a registered model, or by the names in an archive."""
    return encode(_ManifestFile(entries, model_id), indent=2)


def parse(content: bytes) -> Manifest:
    """Return the entries in a manifest's text. Raise BadRecord."""
    return decode(content, _ManifestFile).files


def _set_aside(file: Path, error: Exception) -> None:
    try:
        aside = keep_aside(file)
    except OSError as failure:
        raise StorageFailed(
            f"{file} is damaged ({error}) and cannot be moved aside: {failure.strerror}",
            hint=f"ls -ld {quote(str(file.parent))}",
        ) from failure
    _log.warning("%s was damaged (%s) and is kept as %s: the hashes in it are not used", file, error, aside.name)
