"""The registry: every model mmd knows, in one text file that only mmd writes."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

from mmd import paths
from mmd.atomic import write_atomically
from mmd.errors import BadModelFile, NoSuchModel, RegistryDamaged, StorageFailed, WrongUsage
from mmd.files import ReloadOnChange, aside_path, locked
from mmd.registry import listing, manifest, models_toml
from mmd.registry.record import Model

if TYPE_CHECKING:
    from mmd.registry.detect import Found

_LOCK_TIMEOUT_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class New:
    """A model to be registered. `id` is what it is to be called; without it one is made, from `name` where there is."""

    found: Found
    source: str = "file"
    id: str | None = None
    name: str = ""
    licence: str = ""


@dataclass(frozen=True, slots=True)
class Added:
    model: Model
    is_new: bool


class Registry:
    """Reads without a lock (the file is only ever replaced whole), writes under one."""

    def __init__(
        self, file: Path | None = None, *, lock_seconds: float = _LOCK_TIMEOUT_SECONDS, keeps_damaged: bool = True
    ) -> None:
        """`keeps_damaged`: a file that cannot be read is copied aside."""
        self.file = file or paths.registry_file()
        self._keeps_damaged = keeps_damaged
        self._lock_seconds = lock_seconds
        self._models = ReloadOnChange(self.file, self._read)

    def load(self) -> Mapping[str, Model]:
        """Return every model by its id: the same object until the file changes.

        Raises RegistryDamaged, after which nothing of ours writes the file.
        """
        return self._models.current()

    def _read(self) -> Mapping[str, Model]:
        try:
            with self.file.open("rb") as file:
                stamp = listing.stamp(os.fstat(file.fileno()))
                models = listing.read(stamp)
                if models is None:
                    models = self._parse(file.read())
                    listing.write(stamp, models)
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise self._storage_failed("read", error) from error
        return models

    def all(self) -> tuple[Model, ...]:
        return tuple(self.load().values())

    def get(self, model_id: str) -> Model:
        """The model, whether or not its files are still there; raises NoSuchModel with the nearest id."""
        models = self.load()
        if model_id not in models:
            raise _no_such_model(model_id, models)
        return models[model_id]

    def add(self, path: Path, *, id: str | None = None, source: str = "file", licence: str = "") -> Model:
        """Register what is at `path`; a path that is known keeps its id, and its facts are read again."""
        from mmd.registry import ids
        from mmd.registry.detect import examine

        if id is not None:
            ids.require_valid(id)
        _refuse_unwritable(path)
        # Examined before the lock: it may take a while on a slow disk.
        return self.add_many([New(examine(path), source=source, id=id, licence=licence)])[0].model

    def add_many(self, news: Sequence[New]) -> tuple[Added, ...]:
        """Register all of them in one write, or none. Raises WrongUsage where an id is taken, and StorageFailed."""
        with self._locked():
            before = self.load()
            models, added = dict(before), []
            of_path = {model.path: model for model in models.values()}
            for new in news:
                known = of_path.get(new.found.path)
                model = _added_to(models, new) if known is None else _read_again(known, new)
                models[model.id] = of_path[model.path] = model
                added.append(Added(model, is_new=known is None))
            if models != before:
                self._write(models)
        return tuple(added)

    def put(self, model: Model) -> None:
        """Register a record as it is, out of an archive. Raises WrongUsage where the id is taken, and StorageFailed."""
        with self._locked():
            models = self.load()
            _refuse_taken_id(models, model.id)
            self._write({**models, model.id: model})

    def remove(self, model_id: str) -> Model:
        """Forget a model and what its files were to be; they stay where they are."""
        with self._locked():
            models = dict(self.load())
            if model_id not in models:
                raise _no_such_model(model_id, models)
            removed = models.pop(model_id)
            self._write(models)
            manifest.forget(model_id)  # within the lock: the next model may take the id
        return removed

    def _write(self, models: Mapping[str, Model]) -> None:
        ordered = dict(sorted(models.items()))
        try:
            status = write_atomically(self.file, models_toml.render(ordered.values()))
        except OSError as error:
            raise self._storage_failed("written", error) from error
        listing.write(listing.stamp(status), ordered)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """One writer at a time, so that two `mmd add` at once both survive."""
        lock_file = self.file.with_suffix(".lock")
        try:
            lock = locked(lock_file, timeout_seconds=self._lock_seconds)
        except BlockingIOError:
            raise StorageFailed(
                f"another mmd has been writing {self.file} for {self._lock_seconds:g} s",
                hint=f"fuser -v {quote(str(lock_file))}   # shows the process",
            ) from None
        except OSError as error:
            raise self._storage_failed("written", error) from error
        with lock:
            yield

    def _parse(self, content: bytes) -> dict[str, Model]:
        try:
            return models_toml.parse(content)
        except models_toml.UnknownText as error:
            raise RegistryDamaged(
                f"{self.file} cannot be read: {error}{self._set_aside(content) if self._keeps_damaged else ''}",
                hint=f"${{EDITOR:-nano}} {quote(str(self.file))}   # mend it; or start without models: "
                f"mv {quote(str(self.file))} {quote(str(self.file))}.old",
            ) from error

    def _set_aside(self, content: bytes) -> str:
        """Keep what was found, named after its own time so that many readers of one damage make one copy."""
        try:
            aside = aside_path(self.file)
            if not aside.exists():
                write_atomically(aside, content)
        except OSError as error:
            return f" (and no copy of it could be made: {error.strerror})"
        return f" (copied to {aside.name})"

    def _storage_failed(self, done: str, error: OSError) -> StorageFailed:
        folder = quote(str(self.file.parent))
        return StorageFailed(
            f"{self.file} cannot be {done}: {error.strerror}",
            hint=f"ls -ld {folder}; df -h {folder}   # look at the folder and the space left",
        )


def _added_to(models: Mapping[str, Model], new: New) -> Model:
    from mmd.registry import ids

    _refuse_taken_id(models, new.id)
    found = new.found
    return Model(
        id=new.id or ids.new_id(Path(found.path), found.facts, models, new.name),
        path=found.path,
        files=found.files,
        projector=found.projector,
        source=new.source,
        added=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        licence=new.licence,
        facts=found.facts,
    )


def _read_again(known: Model, new: New) -> Model:
    _refuse_second_id(known, new.id)
    return replace(
        known,
        files=new.found.files,
        projector=new.found.projector,
        licence=new.licence or known.licence,
        facts=new.found.facts,
    )


def missing_files(model: Model) -> tuple[str, ...]:
    """Which of a model's files have vanished since it was added."""
    wanted = (*model.files, *((model.projector,) if model.projector else ()))
    return tuple(file for file in wanted if not os.path.isfile(file))  # noqa: PTH113  strings; and is_file() may raise


def require_files(model: Model) -> None:
    """Raises BadModelFile where one has vanished."""
    gone = missing_files(model)
    if gone:
        _require_readable(gone[0])
        more = f" and {len(gone) - 1} more" if len(gone) > 1 else ""
        raise BadModelFile(
            f"{model.id} is registered, but its file is gone: {gone[0]}{more}",
            hint=f"mmd remove {model.id}   # or put the file back; then: mmd add PATH",
        )


def _require_readable(file: str) -> None:
    """Raises BadModelFile where it is there, or may be, and nobody lets us see."""
    try:
        os.stat(file)  # noqa: PTH116  a string, as the record has it
    except PermissionError as error:
        raise BadModelFile(
            f"{file} cannot be read: {error.strerror}", hint=f"namei -l {quote(file)}   # whose the folders are"
        ) from error
    except OSError:
        return  # gone indeed


def _no_such_model(model_id: str, models: Mapping[str, Model]) -> NoSuchModel:
    from difflib import get_close_matches

    nearest = get_close_matches(model_id.lower(), models, n=1, cutoff=0.5)
    if nearest:
        return NoSuchModel(
            f"no model is called {model_id!r}; the nearest is {nearest[0]!r}",
            hint=f"mmd show {nearest[0]}   # the nearest",
        )
    if models:
        return NoSuchModel(f"no model is called {model_id!r}", hint="mmd list   # see which there are")
    return NoSuchModel(f"no model is called {model_id!r}: none is registered yet", hint="mmd add PATH   # add one")


def _refuse_unwritable(path: Path) -> None:
    if not str(path.absolute()).isprintable():  # nor are the surrogates that stand for bytes that are no UTF-8
        raise WrongUsage(
            f"{str(path)!r} has characters in its name that cannot be written down",
            hint="mv OLD NEW   # rename it, with tab completion",
        )


def _refuse_second_id(known: Model, wanted: str | None) -> None:
    if wanted not in (None, known.id):
        raise WrongUsage(
            f"{known.path} is registered as {known.id!r} already",
            hint=f"mmd remove {known.id} && mmd add {quote(known.path)} --id {wanted}   # rename it",
        )


def _refuse_taken_id(models: Mapping[str, Model], wanted: str | None) -> None:
    if wanted is not None and wanted in models:
        raise WrongUsage(
            f"the id {wanted!r} belongs to {models[wanted].path}",
            hint=f"mmd remove {wanted}   # choose another --id, or free it",
        )
