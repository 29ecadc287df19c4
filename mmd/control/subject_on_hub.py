"""A repository of the hub as what an estimate is asked about."""

from __future__ import annotations

from collections.abc import Sequence
from shlex import quote

from mmd.control.subject import Subject, unregistered
from mmd.machine import Machine
from mmd.plan.recommend import assess, reason, recommended
from mmd.plan.suggestions import Candidate
from mmd.registry.hub.files import Selection, selections_in
from mmd.registry.hub.headers import look_into
from mmd.registry.hub.listing import offer_of
from mmd.registry.hub.obtain import choose, look
from mmd.registry.offer import Base


def on_the_hub(name: str, file: str | None, machine: Machine) -> Subject:
    """By the headers of its files. Raises what `obtain.look`, `obtain.choose` and `headers.look_into` raise."""
    known = look(name)
    repository = known.repository
    selections, why = selections_in(repository.files), ""
    if file is None and len(selections) > 1:
        file, why = _suits(selections, repository.base, machine)
    chosen = choose(known, file)
    found = look_into(repository, chosen)
    others = tuple(
        Candidate(other.file, offer_of(other).weights_bytes, same_repository=True, command=_pull(repository.id, other))
        for other in selections
        if other.file != chosen.file and offer_of(other).format is offer_of(chosen).format
    )
    source = f"hf:{repository.id}@{repository.commit}"
    model = unregistered(repository.id, found, source=source, licence=repository.licence)
    return Subject(f"{repository.id}:{chosen.file}", model, others, why)


def _suits(selections: Sequence[Selection], base: Base, machine: Machine) -> tuple[str, str]:
    """The file of the one to take, and why: by sizes, and what the hub says of all of them."""
    offers = [offer_of(selection) for selection in selections]
    assessed = assess(offers, base, machine, {offer.format for offer in offers})
    taken = recommended(assessed) or assessed[0]
    return taken.offer.file, reason(taken, assessed)


def _pull(repository: str, selection: Selection) -> str:
    return f"mmd pull {quote(f'{repository}:{selection.file}')}"
