"""The download cache that huggingface_hub and mmd share: its layout, and the files that it contains."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from shlex import quote
from uuid import uuid4

from mmd.errors import NoSpace
from mmd.quantities import size_text
from mmd.registry.cache_link import cache_folder, cache_link
from mmd.registry.hub.api import Repository
from mmd.registry.hub.files import HubFile, Selection
from mmd.registry.hub.partial import done_bytes

_COMMIT = re.compile(r"[0-9a-f]{40}")


def blob_of(repository: str, file: HubFile) -> Path | None:
    """Return the path of a large file's content; None for a small file, which is stored under another hash."""
    return None if file.sha256 is None else _folder(repository) / "blobs" / file.sha256


def partial_of(blob: Path) -> Path:
    return blob.with_name(f"{blob.name}.mmd.incomplete")


def require_space(repository: Repository, selection: Selection) -> None:
    """Raises NoSpace if what is still missing is larger than the space left."""
    needed_bytes = sum(_missing_bytes(repository, file) for file in selection.files)
    cache = cache_folder()
    existing = next(folder for folder in (cache, *cache.parents) if folder.exists())
    free_bytes = shutil.disk_usage(existing).free
    if needed_bytes > free_bytes:
        raise NoSpace(
            f"{selection.file} needs {size_text(needed_bytes)} more, and {existing} has {size_text(free_bytes)} left",
            hint=f"hf cache ls; df -h {quote(str(existing))}   # shows what takes the space",
        )


def write_ref(repository: Repository, revision: str) -> None:
    """Record the commit of a branch or tag, as huggingface_hub does; other tools find the snapshot by it."""
    ref = _folder(repository.id) / "refs" / revision
    if revision == repository.commit or not _COMMIT.fullmatch(repository.commit) or _read_ref(ref) == repository.commit:
        return
    ref.parent.mkdir(parents=True, exist_ok=True)
    fresh = ref.with_name(f"{ref.name}.{uuid4().hex[:8]}.tmp")
    fresh.write_text(repository.commit)
    fresh.replace(ref)


def _read_ref(ref: Path) -> str:
    return ref.read_text().strip() if ref.is_file() else ""


def cached_repository(repository: str, revision: str) -> Repository | None:
    """Return the files of a repository that are in the cache, which may not be all; None if it lacks the revision."""
    folder = _folder(repository)
    commit = revision if _COMMIT.fullmatch(revision) else _read_ref(folder / "refs" / revision)
    snapshot = folder / "snapshots" / commit
    if not _COMMIT.fullmatch(commit) or not snapshot.is_dir():
        return None
    paths = sorted(path for path in snapshot.rglob("*") if path.is_file())
    return Repository(repository, commit, tuple(_cached(snapshot, path) for path in paths))


def cached_path(repository: Repository, file: HubFile) -> Path | None:
    """Return the path of a file of the snapshot; None if it is not in the cache."""
    from huggingface_hub import try_to_load_from_cache

    path = try_to_load_from_cache(repository.id, file.name, cache_dir=cache_folder(), revision=repository.commit)
    return Path(path) if isinstance(path, str) else None


def model_path(repository: Repository, selection: Selection) -> Path:
    """Return the path that a model has once it is downloaded."""
    return selection.path_in(_folder(repository.id) / "snapshots" / repository.commit)


def _cached(snapshot: Path, path: Path) -> HubFile:
    link = cache_link(path)
    return HubFile(path.relative_to(snapshot).as_posix(), path.stat().st_size, link.sha256 if link else None)


def _missing_bytes(repository: Repository, file: HubFile) -> int:
    blob = blob_of(repository.id, file)
    if cached_path(repository, file) is not None or (blob is not None and blob.exists()):
        return 0
    return file.size_bytes - (done_bytes(partial_of(blob), file.size_bytes) if blob is not None else 0)


def _folder(repository: str) -> Path:
    from huggingface_hub.file_download import repo_folder_name

    return cache_folder() / repo_folder_name(repo_id=repository, repo_type="model")
