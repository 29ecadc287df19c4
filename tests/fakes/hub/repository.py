"""A repository of the fake hub, and the hub's records about it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.fakes.hub.content import Content, blob_id, is_large, sha256, size_bytes

COMMIT = "c0ffee" * 6 + "c0ff"

# The fields of a list's records if `expand` does not name any.
_LISTED = ("likes", "private", "downloads", "tags", "pipeline_tag", "library_name", "createdAt")
_SHOWN = (*_LISTED, "author", "sha", "lastModified", "gated", "disabled", "cardData", "gguf", "safetensors", "siblings")


@dataclass
class FakeRepository:
    files: Mapping[str, Content]
    tags: tuple[str, ...] = ("gguf",)
    gated: bool = False  # only a request with TOKEN may read its files
    downloads: int = 10
    likes: int = 3
    private: bool = False
    commit: str = COMMIT  # of its branch main
    updated: str = "2026-11-01T10:00:00.000Z"
    pipeline_tag: str | None = None
    library_name: str | None = None
    gguf: dict[str, Any] | None = None  # {"total", "architecture", "context_length"}: of its first GGUF
    safetensors: dict[str, Any] | None = None  # {"parameters": {"BF16": …}, "total": …}
    card: dict[str, Any] = field(default_factory=dict)  # the front matter of its README.md: "license", …
    base_models: tuple[str, ...] = ()
    relation: str = "quantized"  # to its base models

    def all_tags(self) -> list[str]:
        """Return its tags, and those that the hub derives from the card."""
        made = [f"base_model:{name}" for name in self.base_models]
        made += [f"base_model:{self.relation}:{name}" for name in self.base_models]
        made += [f"license:{self.card['license']}"] if "license" in self.card else []
        return [*self.tags, *(tag for tag in made if tag not in self.tags)]


def listed(name: str, repository: FakeRepository, expand: list[str]) -> dict[str, Any]:
    """Return the record in a list, with the fields that `expand` names or the usual ones."""
    return _record(name, repository, expand or _LISTED, with_sizes=False)


def shown(name: str, repository: FakeRepository, expand: list[str], *, with_sizes: bool) -> dict[str, Any]:
    """Return the record of one repository; `with_sizes` is the hub's `blobs=true`."""
    return _record(name, repository, expand or _SHOWN, with_sizes=with_sizes)


def tree(repository: FakeRepository, folder: str) -> list[dict[str, Any]]:
    """Return every file below a folder."""
    prefix = f"{folder}/" if folder else ""
    return [_entry(path, content) for path, content in repository.files.items() if path.startswith(prefix)]


def _record(name: str, repository: FakeRepository, keys: Any, *, with_sizes: bool) -> dict[str, Any]:
    makers: dict[str, Callable[[], Any]] = {
        "author": lambda: name.split("/", maxsplit=1)[0],
        "baseModels": lambda: _base_models(repository),
        "cardData": lambda: repository.card or None,
        "createdAt": lambda: repository.updated,
        "disabled": lambda: False,
        "downloads": lambda: repository.downloads,
        "gated": lambda: "manual" if repository.gated else False,
        "gguf": lambda: repository.gguf,
        "lastModified": lambda: repository.updated,
        "library_name": lambda: repository.library_name,
        "likes": lambda: repository.likes,
        "pipeline_tag": lambda: repository.pipeline_tag,
        "private": lambda: repository.private,
        "safetensors": lambda: repository.safetensors,
        "sha": lambda: repository.commit,
        "siblings": lambda: [_sibling(*file, with_sizes=with_sizes) for file in repository.files.items()],
        "tags": repository.all_tags,
        "trendingScore": lambda: repository.likes,
        "usedStorage": lambda: sum(map(size_bytes, repository.files.values())),
    }
    said = {key: makers[key]() for key in keys if key in makers}
    return {
        "_id": "6" * 24,
        "id": name,
        "modelId": name,
        **{key: value for key, value in said.items() if value is not None},
    }


def _base_models(repository: FakeRepository) -> dict[str, Any] | None:
    if not repository.base_models:
        return None
    return {"relation": repository.relation, "models": [{"_id": "7" * 24, "id": one} for one in repository.base_models]}


def _sibling(path: str, content: Content, *, with_sizes: bool) -> dict[str, Any]:
    if not with_sizes:
        return {"rfilename": path}
    sibling: dict[str, Any] = {"rfilename": path, "size": size_bytes(content), "blobId": blob_id(content)}
    return sibling | ({"lfs": _lfs("sha256", content)} if is_large(content) else {})


def _entry(path: str, content: Content) -> dict[str, Any]:
    entry: dict[str, Any] = {"type": "file", "path": path, "size": size_bytes(content), "oid": blob_id(content)}
    return entry | ({"lfs": _lfs("oid", content)} if is_large(content) else {})


def _lfs(hash_key: str, content: Content) -> dict[str, Any]:
    return {hash_key: sha256(content), "size": size_bytes(content), "pointerSize": 134}
