"""Files of the Hugging Face cache, shared by all tools: a snapshot holds links to blobs that are named by hash."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from mmd.registry.endpoint import require_usable_endpoint

_SHA256 = re.compile(r"[0-9a-f]{64}")
_GIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True, slots=True)
class CacheLink:
    """A file of a snapshot."""

    repository: str  # "OWNER/NAME"
    commit: str
    file: str  # its name in the repository, with its folders
    blob: Path

    @property
    def sha256(self) -> str | None:
        """The blob's name if it is a sha256, as for a large file."""
        return self.blob.name if _SHA256.fullmatch(self.blob.name) else None

    @property
    def git_hash(self) -> str | None:
        """The blob's name if it is git's hash of the content, as for a small file."""
        return self.blob.name if _GIT.fullmatch(self.blob.name) else None


def cache_link(path: str | Path) -> CacheLink | None:
    """Return the snapshot file that a path names; None for a path outside of a snapshot."""
    file = Path(path)
    parents = file.parents
    place = next((n for n, folder in enumerate(parents) if folder.name == "snapshots"), 0)
    if place == 0 or not _is_link(file) or not parents[place + 1].name.startswith("models--"):
        return None
    # One link only: a blob may link on into the cache's shared store, which names files by other hashes.
    blob = Path(os.path.normpath(file.parent / file.readlink()))
    if blob.parent != parents[place + 1] / "blobs":
        return None
    repository = parents[place + 1].name.removeprefix("models--").replace("--", "/")
    snapshot = parents[place - 1]
    return CacheLink(repository, snapshot.name, file.relative_to(snapshot).as_posix(), blob)


def _is_link(file: Path) -> bool:
    return os.path.islink(file)  # noqa: PTH114  is_symlink() raises if a folder cannot be read


def cache_folder() -> Path:
    """Return the folder of the cache, whether or not it exists; HF_HUB_CACHE and HF_HOME apply.

    The path is absolute, since HF_HOME may be relative. Raises HubUnavailable if HF_ENDPOINT is not an address.
    """
    require_usable_endpoint()
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE).absolute()
