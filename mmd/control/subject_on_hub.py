"""A repository of the hub as what an estimate is asked about."""

from __future__ import annotations

from collections.abc import Sequence
from shlex import quote

from mmd.control.subject import Subject, unregistered
from mmd.machine import Machine
from mmd.plan.recommend import assess, reason, recommended
from mmd.plan.suggestions import Candidate
from mmd.registry.hub import api, headers
from mmd.registry.hub.files import Selection, select, selections_in
from mmd.registry.offer import Base, Offer
from mmd.registry.record import Format, ModelType


def on_the_hub(name: str, file: str | None, machine: Machine) -> Subject:
    """By the headers of its files. Raises what looking and `headers.look_into` raise."""
    repository = api.look(name)
    selections, why = selections_in(repository.files), ""
    if file is None and len(selections) > 1:
        file, why = _suits(selections, machine)
    chosen = select(repository.id, repository.files, file)
    found = headers.look_into(repository, chosen)
    others = tuple(
        Candidate(other.file, _offer(other).weights_bytes, same_repository=True, command=_pull(repository.id, other))
        for other in selections
        if other.file != chosen.file and _offer(other).format is _offer(chosen).format
    )
    model = unregistered(repository.id, found, source=f"hf:{repository.id}@{repository.commit}")
    return Subject(f"{repository.id}:{chosen.file}", model, others, why)


def _suits(selections: Sequence[Selection], machine: Machine) -> tuple[str, str]:
    """By names and sizes alone: the file of the one to take, and why."""
    offers = [_offer(selection) for selection in selections]
    assessed = assess(offers, Base(ModelType.CHAT, 0, 0), machine, {offer.format for offer in offers})
    taken = recommended(assessed) or assessed[0]
    return taken.offer.file, reason(taken, assessed)


def _offer(selection: Selection) -> Offer:
    weights = [file for file in selection.files if file.name.endswith((".gguf", ".safetensors"))]
    projectors_bytes = sum(file.size_bytes for file in weights if "mmproj" in file.name.lower())
    return Offer(
        file=selection.file,
        format=Format.GGUF if selection.file.endswith(".gguf") else Format.SAFETENSORS,
        weights_bytes=sum(file.size_bytes for file in weights) - projectors_bytes,
        projector_bytes=projectors_bytes,
    )


def _pull(repository: str, selection: Selection) -> str:
    return f"mmd pull {quote(f'{repository}:{selection.file}')}"
