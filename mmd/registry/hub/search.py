"""Search the hub: one or two lists of repositories, then one request for the sizes in each that may be shown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import ceil
from typing import Any

from mmd.registry.hub.api import ask, described, hub_errors
from mmd.registry.hub.listing import Info, base_of, offers_in, unsupported_format
from mmd.registry.hub.ranking import RankedRepository, scores
from mmd.registry.hub.records import parse_record, parse_records
from mmd.registry.licence import Terms, licence_of, terms
from mmd.registry.offer import Base, HubModel
from mmd.registry.record import Format, ModelType

# The filters leave about one of these many repositories.
_LISTED_PER_RESULT = 3
_MAX_LISTED = 100
_MAX_REQUESTS = 8
_SHOWN = (
    *("downloads", "likes", "tags", "gated", "lastModified", "pipeline_tag", "library_name"),
    *("gguf", "safetensors", "cardData"),
)
_OPEN = "open"
_BILLION = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Query:
    """The search; a field with its default filters nothing."""

    text: str
    limit: int
    formats: tuple[Format, ...] = tuple(Format)
    type: ModelType | None = None
    licence: str = ""  # the hub's name for it, or "open": any that allows all use
    gated: bool | None = None
    min_parameters: int = 0
    max_parameters: int = 0
    base: str = ""  # only quantisations of this repository


@dataclass(frozen=True, slots=True)
class Result:
    """A repository and the models in it."""

    id: str
    base: Base
    formats: tuple[str, ...]
    offers: tuple[HubModel, ...]
    licence: str
    gated: bool
    downloads: int  # in the last 30 days
    likes: int
    updated: str | None  # ISO 8601
    tags: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Found:
    results: tuple[Result, ...]  # best match first: see ranking.py
    unsupported: Mapping[str, int]  # the number of further repositories by what they contain: "MLX"


def search(query: Query) -> Found:
    """Search the hub. Raises HubUnavailable, and RepositoryGated if the token is rejected."""
    with hub_errors(query.text or query.base), ThreadPoolExecutor(_MAX_REQUESTS) as pool:
        lists = list(pool.map(lambda form: _listed(query, form), query.formats))
        infos = {info["id"]: info for listed in lists for info in listed}
        others = [] if query.base else _listed(query, None)
        kinds = Counter(kind for info in others if info["id"] not in infos and (kind := _unsupported(query, info)))
        wanted = [info for info in infos.values() if unsupported_format(info) is None and _is_wanted(query, info)]
        results = pool.map(_result, _ranked(query.text, wanted)[: query.limit])
        return Found(tuple(result for result in results if result is not None and result.offers), dict(kinds))


def _unsupported(query: Query, info: Info) -> str | None:
    if kind := unsupported_format(info):
        return kind
    return "safetensors without vLLM" if Format.SAFETENSORS not in query.formats else None


def _ranked(text: str, infos: Sequence[Info]) -> list[Info]:
    points = scores(text, [_ranked_repository(info) for info in infos])
    return [info for _, info in sorted(zip(points, infos, strict=True), key=lambda pair: pair[0], reverse=True)]


def _ranked_repository(info: Info) -> RankedRepository:
    tags = info.get("tags") or ()
    bases = {tag.rpartition(":")[2] for tag in tags if tag.startswith("base_model:")}
    return RankedRepository(info["id"], info.get("downloads") or 0, info.get("lastModified"), tuple(bases))


def _listed(query: Query, form: Format | None) -> list[dict[str, Any]]:
    filters = [str(form)] if form else []
    filters += [f"base_model:quantized:{query.base}"] if query.base else []
    # The API documents whole billions only; _is_wanted applies the exact bounds.
    bounds = [
        *([f"min:{query.min_parameters // _BILLION}B"] if query.min_parameters >= _BILLION else []),
        *([f"max:{ceil(query.max_parameters / _BILLION)}B"] if query.max_parameters else []),
    ]
    parameters: dict[str, Any] = {
        "sort": "downloads",
        "limit": min(_MAX_LISTED, query.limit * _LISTED_PER_RESULT),
        "expand": list(_SHOWN),
        **({"search": query.text} if query.text else {}),
        **({"filter": filters} if filters else {}),
        **({"gated": str(query.gated).lower()} if query.gated is not None else {}),
        **({"num_parameters": ",".join(bounds)} if bounds else {}),
    }
    return parse_records(ask("/api/models", parameters))


def _is_wanted(query: Query, info: Info) -> bool:
    """Apply the filters that the hub does not have: mmd's types, exact sizes, licences under all their names."""
    base = base_of(info)
    if query.type is not None and not _is_of(query.type, base):
        return False
    # The hub counts parameters for some repositories without showing the number.
    if base.parameters and not query.min_parameters <= base.parameters <= (query.max_parameters or base.parameters):
        return False
    licence = licence_of(info.get("cardData") or {}, info.get("tags") or ())
    return query.licence in ("", licence) or (query.licence == _OPEN and terms(licence) is Terms.OPEN)


def _is_of(wanted: ModelType, base: Base) -> bool:
    # Vision models chat, too; a list does not say whether a GGUF has the projector it needs for images.
    return base.type is wanted or (wanted is ModelType.CHAT and base.type is ModelType.VISION)


def _result(listed: Info) -> Result | None:
    """Return the result for a listed repository; None if it was deleted since, or is not visible."""
    from huggingface_hub.errors import DisabledRepoError, RepositoryNotFoundError

    try:
        # The hub gives sizes for one repository at a time.
        repository = described(parse_record(ask(f"/api/models/{listed['id']}", {"blobs": "true"})))
    except (RepositoryNotFoundError, DisabledRepoError):
        return None
    tags = tuple(listed.get("tags") or ())
    return Result(
        id=listed["id"],
        base=repository.base,
        formats=tuple(str(form) for form in Format if form in tags),
        offers=offers_in(repository.files),
        licence=repository.licence,
        gated=bool(listed.get("gated")),
        downloads=listed.get("downloads") or 0,
        likes=listed.get("likes") or 0,
        updated=listed.get("lastModified"),
        tags=tags,
    )
