"""Looking for models on the hub: a list or two, and then each repository that may be shown, for the sizes in it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import ceil
from typing import Any

from mmd.registry.hub.answers import record_in, records_in
from mmd.registry.hub.api import ask, described, hub_errors
from mmd.registry.hub.listing import Info, base_of, foreign, offers_in
from mmd.registry.hub.ranking import RankedRepository, appeals
from mmd.registry.licence import Terms, licence_of, terms
from mmd.registry.offer import Base, HubModel
from mmd.registry.record import Format, ModelType

# Of every few repositories one is left when the filters are done.
_LISTED_PER_RESULT = 3
_MOST_LISTED = 100
_AT_ONCE = 8
_SHOWN = (
    *("downloads", "likes", "tags", "gated", "lastModified", "pipeline_tag", "library_name"),
    *("gguf", "safetensors", "cardData"),
)
_OPEN = "open"
_BILLION = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Query:
    """What is looked for; what is not said is not asked for."""

    text: str
    limit: int
    formats: tuple[Format, ...] = tuple(Format)
    type: ModelType | None = None
    licence: str = ""  # as the hub names it, or "open": any that allows all use
    gated: bool | None = None
    least_parameters: int = 0
    most_parameters: int = 0
    base: str = ""  # only quantisations of this repository


@dataclass(frozen=True, slots=True)
class Result:
    """One repository, and the models in it."""

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
    results: tuple[Result, ...]  # the one that was most likely meant first: see ranking.py
    foreign: Mapping[str, int]  # how many more there were, by what they are: "MLX"


def search(query: Query) -> Found:
    """Raises HubUnavailable, and RepositoryGated where the token is refused."""
    with hub_errors(query.text or query.base), ThreadPoolExecutor(_AT_ONCE) as pool:
        lists = list(pool.map(lambda form: _listed(query, form), query.formats))
        infos = {info["id"]: info for listed in lists for info in listed}
        others = [] if query.base else _listed(query, None)
        kinds = Counter(kind for info in others if info["id"] not in infos and (kind := _why_not(query, info)))
        wanted = [info for info in infos.values() if foreign(info) is None and _is_wanted(query, info)]
        results = pool.map(_result, _ranked(query.text, wanted)[: query.limit])
        return Found(tuple(result for result in results if result is not None and result.offers), dict(kinds))


def _why_not(query: Query, info: Info) -> str | None:
    if kind := foreign(info):
        return kind
    return "safetensors without vLLM" if Format.SAFETENSORS not in query.formats else None


def _ranked(text: str, infos: Sequence[Info]) -> list[Info]:
    points = appeals(text, [_standing(info) for info in infos])
    return [info for _, info in sorted(zip(points, infos, strict=True), key=lambda pair: pair[0], reverse=True)]


def _standing(info: Info) -> RankedRepository:
    tags = info.get("tags") or ()
    bases = {tag.rpartition(":")[2] for tag in tags if tag.startswith("base_model:")}
    return RankedRepository(info["id"], info.get("downloads") or 0, info.get("lastModified"), tuple(bases))


def _listed(query: Query, form: Format | None) -> list[dict[str, Any]]:
    filters = [str(form)] if form else []
    filters += [f"base_model:quantized:{query.base}"] if query.base else []
    # In whole billions, which is all that is documented; the rest is _is_wanted's.
    bounds = [
        *([f"min:{query.least_parameters // _BILLION}B"] if query.least_parameters >= _BILLION else []),
        *([f"max:{ceil(query.most_parameters / _BILLION)}B"] if query.most_parameters else []),
    ]
    parameters: dict[str, Any] = {
        "sort": "downloads",
        "limit": min(_MOST_LISTED, query.limit * _LISTED_PER_RESULT),
        "expand": list(_SHOWN),
        **({"search": query.text} if query.text else {}),
        **({"filter": filters} if filters else {}),
        **({"gated": str(query.gated).lower()} if query.gated is not None else {}),
        **({"num_parameters": ",".join(bounds)} if bounds else {}),
    }
    return records_in(ask("/api/models", parameters))


def _is_wanted(query: Query, info: Info) -> bool:
    """By what cannot be asked for: types are ours, and a licence may have been named in other words."""
    base = base_of(info)
    if query.type is not None and not _is_of(query.type, base):
        return False
    # Of what the hub asked for in billions; it counts some that it does not show.
    if base.parameters and not query.least_parameters <= base.parameters <= (query.most_parameters or base.parameters):
        return False
    licence = licence_of(info.get("cardData") or {}, info.get("tags") or ())
    return query.licence in ("", licence) or (query.licence == _OPEN and terms(licence) is Terms.OPEN)


def _is_of(wanted: ModelType, base: Base) -> bool:
    # What sees images chats too; a list does not tell whether a GGUF has the projector that it needs for them.
    return base.type is wanted or (wanted is ModelType.CHAT and base.type is ModelType.VISION)


def _result(listed: Info) -> Result | None:
    """None of one that has gone since it was listed, or is shown to others only."""
    from huggingface_hub.errors import DisabledRepoError, RepositoryNotFoundError

    try:
        # Sizes are told of one repository at a time.
        repository = described(record_in(ask(f"/api/models/{listed['id']}", {"blobs": "true"})))
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
