"""Delete files of the Hugging Face cache by huggingface_hub's rules: a blob that another snapshot uses is kept."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

from mmd.errors import StorageFailed
from mmd.registry.cache_link import CacheLink, cache_link

if TYPE_CHECKING:
    from huggingface_hub import CachedFileInfo, DeleteCacheStrategy, HFCacheInfo


@dataclass(frozen=True, slots=True)
class CacheDisposal:
    """A plan: `found` are paths to delete, `strange` are in a repository that huggingface_hub reports as damaged."""

    found: tuple[str, ...]
    strange: tuple[str, ...]
    _notes: Mapping[str, tuple[int, str]]
    _strategies: tuple[DeleteCacheStrategy, ...]

    @classmethod
    def of(cls, paths: Sequence[str]) -> CacheDisposal:
        """Plan the deletion of `paths`, for each of which `cache_link` returns a link. Raises StorageFailed."""
        links = {path: link for path in paths if (link := cache_link(path)) is not None}
        by_cache: dict[Path, dict[str, CacheLink]] = {}
        for path, link in links.items():
            by_cache.setdefault(link.blob.parents[2], {})[path] = link
        notes: dict[str, tuple[int, str]] = {}
        strategies: list[DeleteCacheStrategy] = []
        for cache, of_cache in by_cache.items():
            info = _scanned(cache)
            chosen = _chosen(info, of_cache)
            notes |= {path: _freed(info, file, chosen.values()) for path, file in chosen.items()}
            strategies += _strategies(info, set(chosen.values()))
        found = tuple(path for path in links if path in notes)
        strange = tuple(path for path in links if path not in notes)
        return cls(found, strange, notes, tuple(strategies))

    @property
    def paths(self) -> frozenset[str]:
        return frozenset(self.found)

    def freed(self, path: str) -> tuple[int, str]:
        """Return how many bytes deleting a path frees, and the reason if it is 0."""
        return self._notes[path]

    def carry_out(self) -> None:
        for strategy in self._strategies:
            strategy.execute()


def _scanned(cache: Path) -> HFCacheInfo:
    from huggingface_hub import scan_cache_dir

    try:
        return scan_cache_dir(cache)
    except OSError as error:
        place = str(error.filename or cache)
        raise StorageFailed(
            f"{place} cannot be read: {error.strerror or error}", hint=f"namei -l {quote(place)}"
        ) from error


def _chosen(info: HFCacheInfo, links: Mapping[str, CacheLink]) -> dict[str, CachedFileInfo]:
    """Find files by repository, commit and name, not by path: the scan resolves links in the path of the cache."""
    wanted = {(link.repository, link.commit, link.file): path for path, link in links.items()}
    chosen = {}
    for repo in info.repos:
        for revision in repo.revisions:
            for file in revision.files:
                name = file.file_path.relative_to(revision.snapshot_path).as_posix()
                path = wanted.get((repo.repo_id, revision.commit_hash, name)) if repo.repo_type == "model" else None
                if path is not None:
                    chosen[path] = file
    return chosen


def _freed(info: HFCacheInfo, file: CachedFileInfo, chosen: Iterable[CachedFileInfo]) -> tuple[int, str]:
    deleted = set(chosen)
    others = (one for repo in info.repos for revision in repo.revisions for one in revision.files if one not in deleted)
    if any(one.blob_path == file.blob_path for one in others):
        return 0, "another snapshot in the cache uses it, so its space is not freed"
    if file.blob_path.is_symlink():
        return 0, "its content is in the cache's shared store, which frees it if nothing else uses it"
    status = file.blob_path.stat()
    if status.st_nlink > 1:
        return 0, "a hard link to it remains, so its space is not freed"
    return status.st_blocks * 512, ""


def _strategies(info: HFCacheInfo, chosen: set[CachedFileInfo]) -> list[DeleteCacheStrategy]:
    """Delete a snapshot as a whole if all its files are deleted: no empty folder and no ref to it remains."""
    strategies = []
    single = set(chosen)
    for repo in info.repos:
        whole = [revision for revision in repo.revisions if revision.files and revision.files <= chosen]
        if not whole or (len(whole) == len(repo.revisions) and _is_being_filled(repo.repo_path)):
            continue
        single -= {file for revision in whole for file in revision.files}
        # Only this repository: a copy under another name has snapshots of the same name.
        only = replace(info, repos=frozenset({repo}))
        strategies.append(only.delete_revisions(*(revision.commit_hash for revision in whole)))
    if single:
        strategies.insert(0, info.delete_files(*single))
    return strategies


def _is_being_filled(repository: Path) -> bool:
    """True if the repository has an unfinished download, which is deleted with the last snapshot."""
    return any((repository / "blobs").glob("*.incomplete"))
