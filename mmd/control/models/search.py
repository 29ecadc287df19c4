"""Models of the hub that suit this machine: what a search finds, and which file of a repository is the one to take."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from shlex import quote
from typing import Any

from mmd import engines
from mmd.control.models.installed_engines import installed_engines
from mmd.errors import DoesNotFit, HubUnavailable
from mmd.machine import Machine
from mmd.plan.engine import Planner
from mmd.plan.recommend import Assessed, Place, assess, reason
from mmd.plan.suggestions import Candidate
from mmd.quantities import size_text
from mmd.registry.hub.api import Repository
from mmd.registry.hub.files import Selection, selections_in
from mmd.registry.hub.listing import offer_of
from mmd.registry.hub.register import RepoSnapshot, choose
from mmd.registry.hub.search import Query, Result, search
from mmd.registry.licence import terms
from mmd.registry.record import Format
from mmd.settings import Settings

_MAX_ALTERNATIVES = 5


@dataclass(frozen=True, slots=True)
class SearchHit:
    """A repository that was found; `best` is its model for this machine, whether or not that runs."""

    result: Result
    best: Assessed
    why: str

    @property
    def runs(self) -> bool:
        return self.best.place is not Place.NOWHERE

    @property
    def reference(self) -> str:
        """What `mmd pull` takes for it."""
        return f"{self.result.id}:{self.best.offer.file}"


@dataclass(frozen=True, slots=True)
class HubSearchResult:
    hits: tuple[SearchHit, ...]  # the one to take first
    foreign: Mapping[str, int]  # how many more there were that no engine serves, by what they are


@dataclass(frozen=True, slots=True)
class Choice:
    """One model of a repository, and why it is this one where nobody named it."""

    selection: Selection
    why: str
    runs: bool = True  # as far as sizes tell; what was named is not judged


def served_formats(settings: Settings) -> tuple[Format, ...]:
    """What the engines that are installed serve; where there is none yet, what the one that is got most easily does."""
    served = {form for engine in installed_engines(settings) for form in engine.engine.formats}
    return tuple(form for form in Format if form in served) or (Format.GGUF,)


def _by_format(formats: Iterable[Format]) -> dict[Format, Planner]:
    return {form: engines.for_format(form) for form in formats}


def hub_search(query: Query, machine: Machine) -> HubSearchResult:
    """What runs where it should comes first, and of that what was most likely meant. Raises what `search` raises."""
    found = search(query)
    hits = [hit for result in found.results if (hit := _hit(result, machine, query.formats))]
    hits.sort(key=lambda hit: hit.best.place.rank)  # a stable sort: the rest is in the search's order
    return HubSearchResult(tuple(hits), found.foreign)


def _hit(result: Result, machine: Machine, served: Iterable[Format]) -> SearchHit | None:
    """None where a repository has the mark of a format that is served, and models of another one only."""
    assessed = assess(result.offers, result.base, machine, _by_format(served))
    return SearchHit(result, assessed[0], reason(assessed[0], assessed)) if assessed else None


def choose_for(known: RepoSnapshot, file: str | None, machine: Machine, settings: Settings) -> Choice:
    """What `file` names, or of several models the one that suits the machine; raises what `obtain.choose` raises."""
    repository = known.repository
    selections = {selection.file: selection for selection in selections_in(repository.files)}
    if file is not None or len(selections) < 2:
        return Choice(choose(known, file), "")
    offers = [offer_of(selection) for selection in selections.values()]
    formats = {offer.format for offer in offers}
    # Where no engine here serves any, there will be one: a model may be pulled before it.
    served = formats.intersection(served_formats(settings)) or formats
    assessed = assess(offers, repository.base, machine, _by_format(served))
    best = assessed[0]
    return Choice(selections[best.offer.file], reason(best, assessed), best.place is not Place.NOWHERE)


def choose_to_run(known: RepoSnapshot, file: str | None, machine: Machine, settings: Settings) -> Choice:
    """The same; raises DoesNotFit where it was not named and nothing of the repository runs."""
    choice = choose_for(known, file, machine, settings)
    if choice.runs:
        return choice
    repository, selection = known.repository, choice.selection
    others = alternatives(repository, machine) if known.absence is None else ()  # no second wait for what is not there
    anyway = f"mmd pull {quote(f'{repository.id}:{selection.file}')}   # download it all the same"
    raise DoesNotFit(
        f"no model of {repository.id} runs on this machine: the smallest, {selection.file}, "
        f"has {size_text(selection.total_bytes)}",
        hint=f"{others[0].command}   # a smaller quantisation of the same" if others else anyway,
    )


def alternatives(repository: Repository, machine: Machine) -> tuple[Candidate, ...]:
    """Quantisations of the same model in other repositories, which all have the formats of this one.

    None where the hub does not answer: they are a suggestion beside what is told without it.
    """
    formats = tuple({offer_of(selection).format for selection in selections_in(repository.files)})
    queries = [Query("", _MAX_ALTERNATIVES, formats, base=base) for base in repository.bases]
    try:
        hits = [hit for query in queries for hit in hub_search(query, machine).hits]
    except HubUnavailable:
        return ()
    found = [hit for hit in hits if hit.runs and hit.result.id != repository.id]
    return tuple(
        Candidate(
            hit.reference,
            hit.best.offer.weights_bytes,
            same_repository=False,
            command=f"mmd pull {quote(hit.reference)}",
        )
        for hit in found
    )


def hit_json(hit: SearchHit) -> dict[str, Any]:
    """Sizes in bytes. `needs_bytes` is reckoned from sizes alone, for a context of use."""
    result, best = hit.result, hit.best
    return {
        "id": result.id,
        "type": result.base.type,
        "parameters": result.base.parameters,
        "context": result.base.context_length,
        "formats": list(result.formats),
        "recommended_file": best.offer.file if hit.runs else None,
        "file_bytes": best.offer.total_bytes,
        "needs_bytes": best.needs_bytes,
        "runs": best.place,
        "why": hit.why,
        "licence": result.licence,
        "terms": terms(result.licence),
        "gated": result.gated,
        "downloads": result.downloads,
        "likes": result.likes,
        "updated": result.updated,
        "tags": list(result.tags),
    }
