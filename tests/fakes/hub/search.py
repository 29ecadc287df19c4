"""The fake hub's list of models: GET /api/models with its filters, order and pages."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tests.fakes.hub.repository import FakeRepository, listed

Query = Mapping[str, list[str]]

_ORDERS: dict[str, Callable[[FakeRepository], Any]] = {
    "downloads": lambda repository: repository.downloads,
    "likes": lambda repository: repository.likes,
    "trendingScore": lambda repository: repository.likes,
    "lastModified": lambda repository: repository.updated,
    "createdAt": lambda repository: repository.updated,
}
_MOST_ON_A_PAGE = 1000


def search(repositories: Mapping[str, FakeRepository], query: Query) -> tuple[list[dict[str, Any]], int | None]:
    """Return a page of records, and the cursor of the next page if there is one."""
    found = [(name, one) for name, one in repositories.items() if not one.private and _matches(name, one, query)]
    order = query.get("sort", ["trendingScore"])[0]
    found.sort(key=lambda pair: _ORDERS[order](pair[1]), reverse=True)
    begin = int(query.get("cursor", ["0"])[0])
    end = begin + min(int(query.get("limit", ["1000"])[0]), _MOST_ON_A_PAGE)
    expand = [*query.get("expand", []), *query.get("expand[]", [])]
    records = [listed(name, one, expand) for name, one in found[begin:end]]
    return records, end if end < len(found) else None


def _matches(name: str, repository: FakeRepository, query: Query) -> bool:
    tags = {*repository.all_tags(), repository.pipeline_tag, repository.library_name}
    words = " ".join(query.get("search", [])).lower().split()
    wanted = [tag for asked in query.get("filter", []) for tag in asked.split(",")]
    return (
        all(word in name.lower() for word in words)
        and all(tag in tags for tag in wanted)
        and query.get("author", [name.split("/", maxsplit=1)[0]])[0] == name.split("/", maxsplit=1)[0]
        and query.get("pipeline_tag", [repository.pipeline_tag])[0] == repository.pipeline_tag
        and query.get("gated", [str(repository.gated)])[0].lower() == str(repository.gated).lower()
        and all(_serves(app, repository) for app in query.get("apps", []))
        and _has_parameters(repository, query.get("num_parameters", [""])[0])
    )


def _serves(app: str, repository: FakeRepository) -> bool:
    formats = {"llama.cpp": "gguf", "vllm": "safetensors"}
    return formats.get(app, app) in repository.tags


def _has_parameters(repository: FakeRepository, bounds: str) -> bool:
    """Filter by `min:6B,max:32B`; a repository without a size does not match."""
    total = (repository.gguf or repository.safetensors or {}).get("total")
    limits = dict(bound.split(":", 1) for bound in bounds.split(",") if bound)
    if not limits or total is None:
        return not limits
    return bool(_number(limits.get("min", "0")) <= total <= _number(limits.get("max", "1000000B")))


def _number(text: str) -> float:
    units = {"K": 1e3, "M": 1e6, "B": 1e9}
    return float(text[:-1]) * units[text[-1].upper()] if text[-1].upper() in units else float(text)
