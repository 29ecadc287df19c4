"""A repository of the hub as what an estimate is asked about."""

from __future__ import annotations

from functools import partial
from shlex import quote

from mmd.control.finding import choose_for, elsewhere
from mmd.control.subject import Subject, unregistered
from mmd.machine import Machine
from mmd.plan.suggestions import Candidate
from mmd.registry.hub import headers, obtain
from mmd.registry.hub.api import Repository
from mmd.registry.hub.files import Selection, selections_in
from mmd.registry.hub.listing import offer_of
from mmd.settings import Settings


def on_the_hub(name: str, file: str | None, machine: Machine, settings: Settings) -> Subject:
    """By the headers of its files. Raises what looking and `headers.look_into` raise."""
    known = obtain.look(name)
    repository = known.repository
    picked = choose_for(known, file, machine, settings)
    found = headers.look_into(repository, picked.selection)
    model = unregistered(
        repository.id, found, source=f"hf:{repository.id}@{repository.commit}", licence=repository.licence
    )
    return Subject(
        name=f"{repository.id}:{picked.selection.file}",
        model=model,
        candidates=_beside(repository, picked.selection),
        why=picked.why,
        elsewhere=partial(elsewhere, repository, machine),
    )


def _beside(repository: Repository, chosen: Selection) -> tuple[Candidate, ...]:
    """Other quantisations in the same repository."""
    offers = map(offer_of, selections_in(repository.files))
    return tuple(
        Candidate(
            offer.file,
            offer.weights_bytes,
            same_repository=True,
            command=f"mmd pull {quote(f'{repository.id}:{offer.file}')}",
        )
        for offer in offers
        if offer.file != chosen.file and offer.format is offer_of(chosen).format
    )
