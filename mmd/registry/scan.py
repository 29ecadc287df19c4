"""Find the models below a folder, and the reason for each file that is not one."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from mmd import paths
from mmd.errors import MmdError
from mmd.registry import ollama
from mmd.registry.cache_link import cache_link
from mmd.registry.copying import UNFINISHED
from mmd.registry.detect import DetectedModel, examine
from mmd.registry.formats import gguf_family
from mmd.registry.formats.gguf import read_general
from mmd.registry.formats.gguf_type import is_projector
from mmd.registry.record import Model
from mmd.registry.store import NewModel

# Folders of the Hugging Face cache beside its snapshots: the same files under other names, or no models.
_CACHE_INSIDES = frozenset({"blobs", "refs", ".no_exist"})
_OTHER_CACHES = re.compile(r"(datasets|spaces)--.+")
_SKIPPED = frozenset({".git", ".locks", "__pycache__", "node_modules"})
_HALF = (".incomplete", ".part", ".crdownload", ".aria2", ".tmp")
_WEIGHTS_OF_OTHERS = frozenset({".bin", ".pt", ".pth", ".ckpt", ".onnx"})
# The modules of sentence-transformers, which belong to the model above them.
_MODULE = re.compile(r"\d+_\w+")


@dataclass(frozen=True, slots=True)
class Skipped:
    """A file or folder that is not registered, and why."""

    path: str
    reason: str


@dataclass(slots=True)
class Scan:
    """The result of a scan."""

    news: list[NewModel] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    _paths: dict[tuple[int, int], str] = field(default_factory=dict)  # of a model's first file: the model's path

    def take(self, path: Path, name: str = "") -> None:
        """Examine a path, and add it to `news` or `skipped`."""
        try:
            found = examine(path)
        except MmdError as error:
            self.skip(path, _reason(error, path))
            return
        except OSError as error:
            self.skip(path, error.strerror or str(error))
            return
        if not found.path.isprintable():  # false, too, for surrogates, which stand for bytes that are not UTF-8
            self.skip(path, "its name has unprintable characters")
        elif (first := self._first_path(found)) != found.path:
            self.skip(path, f"the same file as another: {first}")
        else:
            self.news.append(NewModel(found, source=_source(found), name=name))

    def skip(self, path: Path | str, reason: str) -> None:
        self.skipped.append(Skipped(os.fsencode(path).decode(errors="replace"), reason))

    def know(self, model: Model) -> None:
        """Note a registered model: other names of its files are not reported as new."""
        if (identity := _identity(model.files[0])) is not None:
            self._paths[identity] = model.path

    def _first_path(self, found: DetectedModel) -> str:
        """Return the first path seen of a file that has several, through links or older snapshots of the cache."""
        identity = _identity(found.files[0])
        return self._paths.setdefault(identity, found.path) if identity else found.path


def scan(root: Path, known: Iterable[Model] = ()) -> Scan:
    """Search the folder `root` and all below it; links are followed."""
    result = Scan()
    for model in known:
        result.know(model)
    for folder in _folders(Path(os.path.abspath(root)), result):  # noqa: PTH100  resolve() loses a snapshot's names
        try:
            _look_into(folder, result)
        except OSError as error:  # a link may lead into a folder that cannot be read
            result.skip(error.filename or folder, error.strerror or str(error))
    return result


def _folders(root: Path, result: Scan) -> Iterator[Path]:
    """Yield every folder once, even if several links lead to it."""
    seen: set[tuple[int, int]] = set()

    def unreadable(error: OSError) -> None:
        result.skip(error.filename, error.strerror or str(error))

    for name, below, _ in os.walk(root, followlinks=True, onerror=unreadable):
        folder = Path(name)
        status = folder.stat()
        if (status.st_dev, status.st_ino) in seen:
            below.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        if not os.access(folder, os.X_OK):  # names are readable, their contents are not
            below.clear()
            result.skip(folder, os.strerror(errno.EACCES))
            continue
        yield folder
        below[:] = [one for one in _in_order(folder, below) if not _is_skipped_folder(folder, one)]


def _in_order(folder: Path, below: list[str]) -> list[str]:
    """Sort by name, the snapshot of `main` first: the first path of a file is the one that is registered."""
    main = folder.parent / "refs" / "main"
    first = main.read_text().strip() if folder.name == "snapshots" and main.is_file() else ""
    return sorted(below, key=lambda name: (name != first, name))


def _is_skipped_folder(folder: Path, name: str) -> bool:
    if name in _SKIPPED or _OTHER_CACHES.fullmatch(name) or name.endswith(UNFINISHED):
        return True
    if folder / name == paths.cache_dir():
        return True  # header stubs without weights, for estimates
    if (folder / "model_index.json").exists():
        return True  # a diffusers pipeline: its parts are not models of their own
    if _MODULE.fullmatch(name) and (folder / "modules.json").exists():
        return True
    in_cache = folder.name.startswith("models--") and name in _CACHE_INSIDES
    return in_cache or (name in ("blobs", "manifests") and ollama.is_store(folder))


def _look_into(folder: Path, result: Scan) -> None:
    if ollama.is_store(folder):
        for path, name in ollama.models_in(folder):
            result.take(path, name)
        return
    names = sorted(os.listdir(folder))  # noqa: PTH208  includes names that are not UTF-8
    if _is_model_folder(folder, names):
        result.take(folder)
    for name in names:
        path = folder / name
        if name.endswith(_HALF):
            result.skip(path, "its download is not complete")
        elif name.lower().endswith(".gguf"):
            _look_at_gguf(path, result)


def _is_model_folder(folder: Path, names: list[str]) -> bool:
    """True if the folder holds weights in a format other than GGUF, whether mmd serves it or not."""
    if any(name.endswith((".safetensors", ".safetensors.index.json")) for name in names):
        return True
    markers = {"model_index.json", "adapter_config.json", "config.json"} & set(names)
    return bool(markers) and any(Path(name).suffix in _WEIGHTS_OF_OTHERS for name in names)


def _look_at_gguf(path: Path, result: Scan) -> None:
    if path.is_dir() or not gguf_family.is_first_part(path):
        return
    if not path.exists():
        result.skip(path, "it is a dangling link")
        return
    try:
        general = read_general(path)
    except MmdError as error:
        result.skip(path, _reason(error, path))
        return
    if not is_projector(general):  # a projector belongs to the model beside it
        result.take(path)


def _reason(error: MmdError, path: Path) -> str:
    """Return the error's message without the path at its beginning."""
    return error.message.removeprefix(f"{path} ").removeprefix(f"{path}: ")


def _identity(path: str) -> tuple[int, int] | None:
    try:
        status = os.stat(path)  # noqa: PTH116  a string, as the record has it
    except OSError:
        return None  # the file of a registered model is missing, so no other path leads to it
    return status.st_dev, status.st_ino


def _source(found: DetectedModel) -> str:
    link = cache_link(found.files[0])
    return f"hf:{link.repository}@{link.commit}" if link else "file"
