"""Search the hub for models that run on this machine, and choose the file of a repository to take."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from shlex import quote

from mmd import engines
from mmd.control.models.hub_hit import HubHit
from mmd.control.models.installed_engines import installed_engines
from mmd.errors import DoesNotFit, HubUnavailable
from mmd.machine import Machine
from mmd.plan.engine import Planner
from mmd.plan.recommend import Assessed, RunsOn, assess, reason
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
    """A repository found by a search; `best` is its most suitable model, which may still not run here."""

    result: Result
    best: Assessed
    why: str

    @property
    def runs(self) -> bool:
        return self.best.runs_on is not RunsOn.NOWHERE

    @property
    def reference(self) -> str:
        """The argument for `mmd pull`."""
        return f"{self.result.id}:{self.best.offer.file}"


@dataclass(frozen=True, slots=True)
class HubSearchResult:
    """The hits of one search of the hub."""

    hits: tuple[SearchHit, ...]  # best first
    unsupported: Mapping[str, int]  # format -> number of further repositories that no engine serves


@dataclass(frozen=True, slots=True)
class Choice:
    """The chosen model of a repository; `why` is empty if the user named it."""

    selection: Selection
    why: str
    runs: bool = True  # estimated from file sizes; True for a named file, which is not estimated


def served_formats(settings: Settings) -> tuple[Format, ...]:
    """Return the formats that the installed engines serve; GGUF if no engine is installed yet."""
    served = {form for engine in installed_engines(settings) for form in engine.engine.formats}
    return tuple(form for form in Format if form in served) or engines.all_engines()[-1].formats


def _by_format(formats: Iterable[Format]) -> dict[Format, Planner]:
    return {form: engines.for_format(form) for form in formats}


def hub_search(query: Query, machine: Machine) -> HubSearchResult:
    """Search the hub. Models that fit the GPU come first; within a group, the search's order is kept.

    Raises what `search` raises.
    """
    found = search(query)
    hits = [hit for result in found.results if (hit := _hit(result, machine, query.formats))]
    hits.sort(key=lambda hit: hit.best.runs_on.rank)  # stable: keeps the search's order within a rank
    return HubSearchResult(tuple(hits), found.unsupported)


def _hit(result: Result, machine: Machine, served: Iterable[Format]) -> SearchHit | None:
    """Return None if the repository is tagged with a served format but holds models of other formats only."""
    assessed = assess(result.offers, result.base, machine, _by_format(served))
    return SearchHit(result, assessed[0], reason(assessed[0], assessed)) if assessed else None


def choose_for(snapshot: RepoSnapshot, file: str | None, machine: Machine, settings: Settings) -> Choice:
    """Return the model that `file` names, else the most suitable one. Raises what `choose` raises."""
    repository = snapshot.repository
    selections = {selection.file: selection for selection in selections_in(repository.files)}
    if file is not None or len(selections) < 2:
        return Choice(choose(snapshot, file), "")
    offers = [offer_of(selection) for selection in selections.values()]
    formats = {offer.format for offer in offers}
    # If no installed engine serves any format, consider all: a model may be pulled before its engine is installed.
    served = formats.intersection(served_formats(settings)) or formats
    assessed = assess(offers, repository.base, machine, _by_format(served))
    best = assessed[0]
    return Choice(selections[best.offer.file], reason(best, assessed), best.runs_on is not RunsOn.NOWHERE)


def choose_to_run(snapshot: RepoSnapshot, file: str | None, machine: Machine, settings: Settings) -> Choice:
    """Like `choose_for`, but raises DoesNotFit if no file was named and no model of the repository runs."""
    choice = choose_for(snapshot, file, machine, settings)
    if choice.runs:
        return choice
    repository, selection = snapshot.repository, choice.selection
    is_online = snapshot.offline_error is None  # if offline, do not wait for the hub again
    others = alternatives(repository, machine) if is_online else ()
    anyway = f"mmd pull {quote(f'{repository.id}:{selection.file}')}   # download it anyway"
    raise DoesNotFit(
        f"no model of {repository.id} runs on this machine: the smallest, {selection.file}, "
        f"has {size_text(selection.total_bytes)}",
        hint=f"{others[0].command}   # a smaller quantisation of the same model" if others else anyway,
    )


def alternatives(repository: Repository, machine: Machine) -> tuple[Candidate, ...]:
    """Return quantisations of the same model in other repositories, in the same formats.

    Empty if the hub does not answer: they are suggestions only.
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


def hub_hit(hit: SearchHit) -> HubHit:
    """Return what `mmd search --json` and the API show of a hit."""
    result, best = hit.result, hit.best
    return HubHit(
        id=result.id,
        type=result.base.type,
        parameters=result.base.parameters,
        context=result.base.context_length,
        formats=tuple(map(Format, result.formats)),
        recommended_file=best.offer.file if hit.runs else None,
        file_bytes=best.offer.total_bytes,
        needs_bytes=best.needs_bytes,
        runs=best.runs_on.value,
        why=hit.why,
        licence=result.licence,
        terms=terms(result.licence),
        gated=result.gated,
        downloads=result.downloads,
        likes=result.likes,
        updated=result.updated,
        tags=result.tags,
    )
