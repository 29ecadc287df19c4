"""Archive a model on another disk, and restore it.

An archive is a folder, not a tar: weights do not compress, an interrupted copy continues where it ended, a single
damaged file can be replaced, and other tools and `mmd add` read the files in place. The folder also holds the model's
record and the manifest; both name files relative to the folder.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath
from shlex import quote

from mmd import paths
from mmd.errors import BadModelFile, StorageFailed, WrongUsage
from mmd.registry import ids, manifest, models_toml
from mmd.registry.companions import ARCHIVE_MANIFEST, ARCHIVE_RECORD, files_of
from mmd.registry.copying import UNFINISHED, Copying
from mmd.registry.detect import examine
from mmd.registry.files import read_text_file
from mmd.registry.hashing import Report
from mmd.registry.manifest import Entry, Manifest, Origin
from mmd.registry.record import Format, Model
from mmd.registry.store import Registry
from mmd.registry.verification import expected_of


class Archiving:
    """Copies a model into its own folder below `destination`. Call `copy`, `verify` and `finish` in this order."""

    def __init__(self, model: Model, destination: Path) -> None:
        """Check everything before the first byte is copied. Raises WrongUsage, BadModelFile and NoSpace."""
        self.folder = destination / model.id
        if not destination.is_dir():  # not created: it may be the mount point of a disk that is not mounted
            raise WrongUsage(
                f"there is no folder {destination}", hint=f"mkdir {quote(str(destination))}   # or mount it"
            )
        if os.path.lexists(self.folder):
            raise WrongUsage(
                f"{self.folder} exists already", hint=f"mv {quote(str(self.folder))} {quote(str(self.folder))}.old"
            )
        self._model = model
        self._base = _base(model)
        self.partial = destination / f".{model.id}{UNFINISHED}"
        self._files = files_of(model)
        sources = {self._name(path): Path(path) for path in self._files}
        known = {self._name(path): entry.sha256 for path, entry in expected_of(model).items() if entry.sha256}
        self._copying = Copying(sources, known, self.partial)
        self._copying.require_space()
        self.total_bytes = self._copying.total_bytes

    def copy(self, report: Report) -> None:
        """Copy the files. Raises BadModelFile, NoSpace and StorageFailed; the next attempt continues from there."""
        self._copying.copy(report, self._learn)

    def verify(self, report: Report) -> None:
        """Read the copies back and compare them. Raises StorageFailed."""
        self._copying.verify(report)

    def finish(self) -> Path:
        """Give the archive its name, and return its folder."""
        known = expected_of(self._model)
        entries = {self._name(path): known[path] for path in self._files}
        try:
            # The folder still has its temporary name, so these writes need not be atomic (FAT has no atomic rename).
            (self.partial / ARCHIVE_RECORD).write_bytes(models_toml.render(self._record()))
            (self.partial / ARCHIVE_MANIFEST).write_bytes(manifest.render(entries))
            self.partial.rename(self.folder)
        except OSError as error:
            raise _failed(self.folder, error) from error
        os.sync()  # on every file system, names included: the caller may delete the original next
        return self.folder

    def _record(self) -> Model:
        model = self._model
        return replace(
            model,
            path=self._name(model.path),
            files=tuple(map(self._name, model.files)),
            projector=self._name(model.projector) if model.projector else None,
        )

    def _name(self, path: str) -> str:
        """Return a path relative to the archive; "." if the model is the folder itself."""
        return Path(path).relative_to(self._base).as_posix()

    def _learn(self, name: str, sha256: str) -> None:
        """Record a hash at once: the next attempt needs it to continue an interrupted copy."""
        manifest.write(self._model, {str(self._base / name): sha256}, Origin.HERE)


class Restoring:
    """Copies an archive back to this machine, under its old id. Call `copy`, `verify` and `finish` in this order."""

    def __init__(self, archive: Path, registry: Registry) -> None:
        """Check everything before the first byte is copied. Raises WrongUsage, BadModelFile and NoSpace."""
        self._archive = archive
        self._registry = registry
        self._record, self._entries = _read(archive)
        self.model_id = self._record.id
        if self.model_id in registry.load():
            raise WrongUsage(
                f"{self.model_id} is registered already, at {registry.get(self.model_id).path}",
                hint=f"mmd remove {self.model_id}   # then run the same command again",
            )
        self.folder = paths.models_dir() / self.model_id
        if os.path.lexists(self.folder):
            raise WrongUsage(
                f"{self.folder} exists already", hint=f"mmd add {quote(str(self.folder))} --id {self.model_id}"
            )
        self.partial = paths.models_dir() / f".{self.model_id}{UNFINISHED}"
        sources = {name: archive / name for name in self._entries}
        known = {name: entry.sha256 for name, entry in self._entries.items() if entry.sha256}
        self._copying = Copying(sources, known, self.partial)
        self._copying.require_space()
        self.total_bytes = self._copying.total_bytes

    def copy(self, report: Report) -> None:
        """Copy the files. Raises BadModelFile, NoSpace and StorageFailed; the next attempt continues from there."""
        try:
            paths.make_private(self.partial)
        except OSError as error:
            raise _failed(self.partial, error) from error
        self._copying.copy(report, _nothing_is_new)

    def verify(self, report: Report) -> None:
        """Read the copies back and compare them. Raises StorageFailed."""
        self._copying.verify(report)

    def finish(self) -> Model:
        """Register the model. Raises what `examine` raises, and WrongUsage if the id is in use by now."""
        examine(self.partial / self._record.path)
        try:
            self.partial.rename(self.folder)
        except OSError as error:
            raise _failed(self.folder, error) from error
        found = examine(self.folder / self._record.path)
        model = replace(self._record, path=found.path, files=found.files, projector=found.projector, facts=found.facts)
        self._registry.put(model)
        manifest.write_entries(model.id, {str(self.folder / name): entry for name, entry in self._entries.items()})
        return model


def _read(archive: Path) -> tuple[Model, Manifest]:
    """Read and check the record and the manifest of an archive. The disk is not trusted: anyone may have written it."""
    if not (archive / ARCHIVE_RECORD).is_file():
        raise WrongUsage(
            f"{archive} is not an archive of mmd: it has no {ARCHIVE_RECORD}",
            hint=f"mmd add {quote(str(archive))}   # as it is",
        )
    try:
        (record,) = models_toml.parse(read_text_file(archive / ARCHIVE_RECORD)).values()
        entries = manifest.parse(read_text_file(archive / ARCHIVE_MANIFEST))
        _require_inside(record, entries)
    except (ValueError, OSError) as error:
        raise BadModelFile(
            f"{archive} is not a complete archive: {error}",
            hint=f"mmd add {quote(str(archive))}   # its files as they are",
        ) from error
    ids.require_valid(record.id)
    return record, entries


def _require_inside(record: Model, entries: Mapping[str, Entry]) -> None:
    for text in (record.source, record.added, record.licence):
        if not text.isprintable():  # mmd prints it on a terminal
            raise ValueError(f"{text!r} has unprintable characters")
    for name in (record.path, *record.files, *([record.projector] if record.projector else []), *entries):
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise ValueError(f"{name!r} leads out of the archive")
        if not name.isprintable() or PurePosixPath(name).as_posix() != name:
            raise ValueError(f"{name!r} is not a file name")
        if name in entries and entries[name].sha256 is None:
            raise ValueError(f"the manifest has no hash of {name}")
    missing = {*record.files, *([record.projector] if record.projector else [])} - set(entries)
    if missing:
        raise ValueError(f"the manifest does not list {min(missing)}")


def _base(model: Model) -> Path:
    return Path(model.path) if model.facts.format is Format.SAFETENSORS else Path(model.path).parent


def _nothing_is_new(name: str, sha256: str) -> None:
    raise AssertionError(f"an archive has a hash of each file, {name} included")


def _failed(place: Path, error: OSError) -> StorageFailed:
    return StorageFailed(
        f"{place} cannot be written: {error.strerror or error}", hint=f"ls -ld {quote(str(place.parent))}"
    )
