"""The registry: every registered model, in one text file that only mmd writes."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

from mmd import paths
from mmd.atomic import write_atomically
from mmd.codec import BadRecord
from mmd.errors import BadModelFile, NoSuchModel, RegistryDamaged, StorageFailed, WrongUsage
from mmd.files import ReloadOnChange, aside_path, locked
from mmd.registry import models_json
from mmd.registry.record import Model

if TYPE_CHECKING:
    from mmd.registry.detect import DetectedModel

_LOCK_TIMEOUT_SECONDS = 10.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class NewModel:
    """A model to register. Without `id` it gets one from `name` or, without that, from its file."""

    found: DetectedModel
    source: str = "file"
    id: str | None = None
    name: str = ""
    licence: str = ""


@dataclass(frozen=True, slots=True)
class AddResult:
    model: Model
    is_new: bool


class Registry:
    """The models in models.json. Reads take no lock, for the file is only ever replaced whole; writes take one."""

    def __init__(
        self, file: Path | None = None, *, lock_seconds: float = _LOCK_TIMEOUT_SECONDS, is_read_only: bool = False
    ) -> None:
        """`is_read_only`: neither copy a damaged file aside nor replace the file of mmd 0.1."""
        self.file = file or paths.registry_file()
        self._old_file = self.file.with_suffix(".toml")  # of mmd 0.1
        self._is_read_only = is_read_only
        self._lock_seconds = lock_seconds
        self._models = ReloadOnChange(self.file, self._read)

    def load(self) -> Mapping[str, Model]:
        """Return every model by its id: the same object until the file changes.

        Raise RegistryDamaged, after which no verb writes the file.
        """
        return self._models.current()

    def _read(self) -> Mapping[str, Model]:
        if not self._is_read_only and _is_own(self._old_file):
            with suppress(StorageFailed), self._locked():  # if the disk is full or read-only, the old file still holds
                pass
        return self._read_both()

    def _read_both(self) -> dict[str, Model]:
        """Return the models of models.json, and those of models.toml whose id and path are not in it.

        The old file is read first: another process renames it only when its models are in models.json.
        """
        old, new = self._content(self._old_file), self._content(self.file)
        models = {} if new is None else self._parsed(self.file, new, models_json.parse)
        if old is None:
            return models
        from mmd.registry import models_toml

        if new is None:
            return self._parsed(self._old_file, old, models_toml.parse)
        try:
            added = models_toml.parse(old)
        except BadRecord as error:
            _log.warning("%s is ignored: %s", self._old_file, error)
            return models
        known_paths = {model.path for model in models.values()}
        return {**{id: model for id, model in added.items() if model.path not in known_paths}, **models}

    def _replace_old(self) -> None:
        """Move the models of mmd 0.1 to models.json, then rename models.toml. The lock is held.

        Both files are there if mmd was killed in between, and if an mmd 0.1 that still runs has added a model.
        """
        if not self._old_file.exists():
            return
        self._write(self._read_both())
        try:
            self._old_file.replace(_unused(self._old_file.with_suffix(".toml.old")))
        except OSError as error:  # its models would come back after `mmd remove`
            raise StorageFailed(
                f"{self._old_file} cannot be renamed: {error.strerror}",
                hint=f"rm {quote(str(self._old_file))}   # {self.file.name} has its models",
            ) from error
        with suppress(OSError):
            (paths.cache_dir() / "models.json").unlink(missing_ok=True)  # the copy that mmd 0.1 made of models.toml

    def _content(self, file: Path) -> bytes | None:
        """Return the content of a file, None if the file does not exist. Raise StorageFailed."""
        try:
            return file.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._storage_failed("read", error, file) from error

    def has_models(self) -> bool:
        """Return whether any model is registered, without decoding the file: `mmd status` needs no more."""
        content = self._content(self.file)
        return self._old_file.exists() or (content is not None and not models_json.is_empty(content))

    def all(self) -> tuple[Model, ...]:
        return tuple(self.load().values())

    def get(self, model_id: str) -> Model:
        """Return the model, even if its files are missing. Raise NoSuchModel, which names the nearest id."""
        models = self.load()
        if model_id not in models:
            raise no_such_model(model_id, models)
        return models[model_id]

    def add(self, path: Path, *, id: str | None = None, source: str = "file", licence: str = "") -> Model:
        """Register the model at `path`. A registered path keeps its id, and its facts are read again."""
        from mmd.registry import ids
        from mmd.registry.detect import examine

        if id is not None:
            ids.require_valid(id)
        _refuse_unwritable(path)
        # Examined before the lock is taken: a slow disk may need seconds.
        return self.add_many([NewModel(examine(path), source=source, id=id, licence=licence)])[0].model

    def add_many(self, news: Sequence[NewModel]) -> tuple[AddResult, ...]:
        """Register all of them in one write, or none. Raise WrongUsage if an id is taken, and StorageFailed."""
        with self._locked():
            before = self.load()
            models, added = dict(before), []
            of_path = {model.path: model for model in models.values()}
            for new in news:
                known = of_path.get(new.found.path)
                model = _added_to(models, new) if known is None else _read_again(known, new)
                models[model.id] = of_path[model.path] = model
                added.append(AddResult(model, is_new=known is None))
            if models != before:
                self._write(models)
        return tuple(added)

    def put(self, model: Model) -> None:
        """Register the record of an archive. Raise WrongUsage if the id is taken, and StorageFailed."""
        with self._locked():
            models = self.load()
            _refuse_taken_id(models, model.id)
            self._write({**models, model.id: model})

    def remove(self, model_id: str) -> Model:
        """Remove a model and its manifest from the registry; its files stay. Raise NoSuchModel and StorageFailed."""
        from mmd.registry import manifest

        with self._locked():
            models = dict(self.load())
            if model_id not in models:
                raise no_such_model(model_id, models)
            removed = models.pop(model_id)
            self._write(models)
            manifest.forget(model_id)  # within the lock: the next model may take the id
        return removed

    def _write(self, models: Mapping[str, Model]) -> None:
        """Replace the file. The text is read back first, so that a record it cannot hold replaces nothing."""
        ordered = dict(sorted(models.items()))
        content = models_json.render(ordered.values())
        if models_json.parse(content) != ordered:
            message = f"{self.file} is unchanged, because a record cannot be written as text"
            raise StorageFailed(message, hint="mv OLD NEW   # rename a file whose name is not valid UTF-8")
        try:
            write_atomically(self.file, content)
        except OSError as error:
            raise self._storage_failed("written", error) from error

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the lock of writers: two `mmd add` at the same time both take effect. Raise StorageFailed."""
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
            self._replace_old()
            yield

    def _parsed(self, file: Path, content: bytes, parse: Callable[[bytes], dict[str, Model]]) -> dict[str, Model]:
        try:
            return parse(content)
        except BadRecord as error:
            path = quote(str(file))
            raise RegistryDamaged(
                f"{file} cannot be read: {error}{'' if self._is_read_only else _copied_aside(file, content)}",
                hint=f"${{EDITOR:-nano}} {path}   # repair it; or start without models: mv {path} {path}.old",
            ) from error

    def _storage_failed(self, done: str, error: OSError, file: Path | None = None) -> StorageFailed:
        folder = quote(str(self.file.parent))
        return StorageFailed(
            f"{file or self.file} cannot be {done}: {error.strerror}",
            hint=f"ls -ld {folder}; df -h {folder}   # shows the folder and the free space",
        )


def _is_own(file: Path) -> bool:
    """True if the file exists and belongs to this user: `sudo -E mmd list` must not leave a models.json of root's."""
    try:
        return file.stat().st_uid == os.geteuid()
    except OSError:
        return False


def _unused(path: Path) -> Path:
    """Return the path, or the first of PATH.2, PATH.3 and so on that does not exist."""
    numbered = (path.with_name(f"{path.name}.{number}") for number in count(2))
    return path if not path.exists() else next(one for one in numbered if not one.exists())


def _copied_aside(file: Path, content: bytes) -> str:
    """Keep a damaged file: one copy, however often it is read. Return what the error says of it."""
    try:
        aside = aside_path(file)
        if not aside.exists():
            write_atomically(aside, content)
    except OSError as error:
        return f" (it could not be copied: {error.strerror})"
    return f" (copied to {aside.name})"


def _added_to(models: Mapping[str, Model], new: NewModel) -> Model:
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


def _read_again(known: Model, new: NewModel) -> Model:
    _refuse_second_id(known, new.id)
    return replace(
        known,
        files=new.found.files,
        projector=new.found.projector,
        licence=new.licence or known.licence,
        facts=new.found.facts,
    )


def missing_files(model: Model) -> tuple[str, ...]:
    """Return the files of a model that no longer exist."""
    wanted = (*model.files, *((model.projector,) if model.projector else ()))
    return tuple(file for file in wanted if not os.path.isfile(file))  # noqa: PTH113  strings; and is_file() may raise


def require_files(model: Model) -> None:
    """Raise BadModelFile if a file of the model is missing."""
    gone = missing_files(model)
    if gone:
        _require_readable(gone[0])
        more = f" and {len(gone) - 1} more" if len(gone) > 1 else ""
        raise BadModelFile(
            f"{model.id} is registered, but its file is missing: {gone[0]}{more}",
            hint=f"mmd remove {model.id}   # or restore the file, then: mmd add PATH",
        )


def _require_readable(file: str) -> None:
    """Raise BadModelFile if permissions hide whether the file exists."""
    try:
        os.stat(file)  # noqa: PTH116  a string, as the record has it
    except PermissionError as error:
        raise BadModelFile(
            f"{file} cannot be read: {error.strerror}", hint=f"namei -l {quote(file)}   # owners of the folders"
        ) from error
    except OSError:
        return  # it is missing


def no_such_model(model_id: str, models: Mapping[str, Model]) -> NoSuchModel:
    """Return the error for an id that no model has; it names the nearest one."""
    from difflib import get_close_matches

    nearest = get_close_matches(model_id.lower(), models, n=1, cutoff=0.5)
    if nearest:
        return NoSuchModel(
            f"no model is called {model_id!r}; did you mean {nearest[0]!r}?",
            hint=f"mmd show {nearest[0]}   # the nearest id",
        )
    if models:
        return NoSuchModel(f"no model is called {model_id!r}", hint="mmd list   # shows the registered models")
    return NoSuchModel(f"no model is called {model_id!r}: none is registered yet", hint="mmd add PATH   # add one")


def _refuse_unwritable(path: Path) -> None:
    if not str(path.absolute()).isprintable():  # false, too, for surrogates, which stand for bytes that are not UTF-8
        raise WrongUsage(
            f"{str(path)!r} has unprintable characters in its name",
            hint="mv OLD NEW   # rename it; use tab completion",
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
