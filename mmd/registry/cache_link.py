"""Files of the Hugging Face cache, which all tools share: a snapshot holds links to blobs, named by their hash."""

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
        """The blob's name, where it is a sha256: that of a large file."""
        return self.blob.name if _SHA256.fullmatch(self.blob.name) else None

    @property
    def git_hash(self) -> str | None:
        """The blob's name, where it is git's hash of its content: that of a small file."""
        return self.blob.name if _GIT.fullmatch(self.blob.name) else None


def cache_link(path: str | Path) -> CacheLink | None:
    """What a path in a snapshot stands for; None for any other path."""
    file = Path(path)
    parents = file.parents
    place = next((n for n, folder in enumerate(parents) if folder.name == "snapshots"), 0)
    if place == 0 or not _is_link(file) or not parents[place + 1].name.startswith("models--"):
        return None
    # The first step only: a blob may lead on into the cache's store of shared ones, where names are other hashes.
    blob = Path(os.path.normpath(file.parent / file.readlink()))
    if blob.parent != parents[place + 1] / "blobs":
        return None
    repository = parents[place + 1].name.removeprefix("models--").replace("--", "/")
    snapshot = parents[place - 1]
    return CacheLink(repository, snapshot.name, file.relative_to(snapshot).as_posix(), blob)


def _is_link(file: Path) -> bool:
    return os.path.islink(file)  # noqa: PTH114  where it may not be looked at, is_symlink() raises


def cache_folder() -> Path:
    """Where the cache is, whether or not there is one: HF_HUB_CACHE and HF_HOME hold as everywhere.

    Absolute, as what is registered: HF_HOME may be a name in the current folder. Raises HubUnavailable where
    HF_ENDPOINT is no address.
    """
    require_usable_endpoint()
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE).absolute()
