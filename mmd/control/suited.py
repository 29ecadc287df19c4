"""Which model of a repository is pulled where nobody names one."""

from __future__ import annotations

from shlex import quote

from mmd import engines
from mmd.errors import DoesNotFit
from mmd.machine import Machine
from mmd.plan.recommend import assess, reason, recommended
from mmd.registry.hub.api import Repository
from mmd.registry.hub.files import Selection, selections_in
from mmd.registry.hub.listing import offer_of
from mmd.registry.record import Format
from mmd.settings import Settings


def suited(repository: Repository, machine: Machine, settings: Settings) -> tuple[Selection, str]:
    """The one to take on this machine, and why, in words that go on after its name. Raises DoesNotFit.

    The repository holds one at least.
    """
    selections = {selection.file: selection for selection in selections_in(repository.files)}
    offers = [offer_of(selection) for selection in selections.values()]
    formats = {offer.format for offer in offers}
    # Where no engine here serves any, there will be one: a model may be pulled before it.
    assessed = assess(offers, repository.base, machine, (_served(settings) & formats) or formats)
    taken = recommended(assessed)
    if taken is None:
        least = min(assessed, key=lambda one: one.needs_bytes)
        raise DoesNotFit(
            f"no model of {repository.id} runs here: the smallest, {least.offer.file}, needs "
            f"{least.needs_bytes / 2**30:.1f} GiB, and there are {least.has_bytes / 2**30:.1f}",
            hint=f"mmd pull {quote(f'{repository.id}:{least.offer.file}')}   # download it all the same",
        )
    return selections[taken.offer.file], reason(taken, assessed)


def _served(settings: Settings) -> set[Format]:
    configured = {name: place for name in ("llama-server", "vllm") if (place := settings[f"engines.{name}"])}
    return {Format(name) for engine in engines.installed(configured) for name in engine.formats}
