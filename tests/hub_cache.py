"""A Hugging Face cache with files in it, written by huggingface_hub's own functions."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from huggingface_hub.file_download import _create_symlink, repo_folder_name


def cached_repository(
    cache: Path, repository: str, files: Mapping[str, bytes], *, commit: str = "a" * 40, ref: str | None = "main"
) -> Path:
    """Return the snapshot. Large files are named by their sha256, small ones by git's hash, as on the hub."""
    folder = cache / repo_folder_name(repo_id=repository, repo_type="model")
    snapshot = folder / "snapshots" / commit
    (folder / "blobs").mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        blob = folder / "blobs" / _blob_name(name, content)
        blob.write_bytes(content)
        (snapshot / name).parent.mkdir(parents=True, exist_ok=True)
        _create_symlink(str(blob), str(snapshot / name))
    if ref is not None:
        (folder / "refs").mkdir(exist_ok=True)
        (folder / "refs" / ref).write_text(commit)
    return snapshot


def _blob_name(name: str, content: bytes) -> str:
    if name.endswith((".gguf", ".safetensors")):
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
