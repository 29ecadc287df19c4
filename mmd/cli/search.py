"""The verb that looks for models on the hub: search."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mmd.cli import parameters
from mmd.cli.output import print_json, print_named_table, say
from mmd.quantities import count_text, size_text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mmd.control.models.search import SearchHit

_TYPES = ("chat", "vision", "completion", "embedding", "reranker", "classifier")
_RUNS = {"gpu": "on GPU", "cpu": "on CPU", "partly": "partly", "no": "no"}


@click.command(short_help="Look for models on the hub that run here.")
@click.argument("text", nargs=-1, required=True)
@click.option("--type", "type_", type=click.Choice(_TYPES), help="Only models of this kind.")
@click.option("--size", metavar="FROM..TO", help="Only of so many parameters: 7b..14b, ..4b, 30b..")
@click.option("--licence", "--license", metavar="NAME", default="", help="Only under it; open: any that allows all.")
@click.option("--gated/--no-gated", default=None, help="Only those that want their licence accepted, or none of them.")
@click.option("--all", "everything", is_flag=True, help="Show what does not run here, too.")
@click.option(
    "--limit", type=click.IntRange(1, 100), metavar="N", default=20, show_default=True, help="So many at most."
)
@parameters.machine_file
@parameters.as_json
def search(
    text: tuple[str, ...],
    type_: str | None,
    size: str | None,
    licence: str,
    gated: bool | None,
    everything: bool,
    limit: int,
    machine_file: Path | None,
    as_json: bool,
) -> None:
    """Look for models on the Hugging Face hub that run on this machine, the one to take first.

    Memory is reckoned from sizes alone: mmd estimate REPO knows it better.
    """
    from mmd.control.models.search import hub_hit, hub_search, served_formats
    from mmd.errors import WrongUsage
    from mmd.machine import load_machine, read_machine
    from mmd.registry.hub.search import Query
    from mmd.registry.hub.size import parse_size
    from mmd.registry.record import ModelType
    from mmd.settings import read_settings

    if not " ".join(text).strip():
        raise WrongUsage("there are no words to look for", hint="mmd search qwen 8b")
    least, most = parse_size(size)
    query = Query(
        text=" ".join(text),
        limit=limit,
        formats=served_formats(read_settings()),
        type=ModelType(type_) if type_ else None,
        licence=licence.lower(),
        gated=gated,
        min_parameters=least,
        max_parameters=most,
    )
    finding = hub_search(query, load_machine(machine_file) if machine_file else read_machine())
    shown = [hit for hit in finding.hits if everything or hit.runs]
    if as_json:
        print_json([hub_hit(hit) for hit in shown])
        return
    _print(shown)
    filters = _filters(gated, type=type_, size=size, licence=licence)
    _say_what_is_left(query.text, filters, shown, len(finding.hits) - len(shown), finding.unsupported)


def _print(hits: Sequence[SearchHit]) -> None:
    if hits:
        heading = ("REPOSITORY", "FILE", "TYPE", "SIZE", "NEEDS", "RUNS", "DOWNLOADS", "LICENCE")
        print_named_table(heading, [_cells(hit) for hit in hits])


def _cells(hit: SearchHit) -> tuple[str, ...]:
    result, offer = hit.result, hit.best.offer
    return (
        result.id,
        _short(offer.file),
        result.base.type,
        size_text(offer.total_bytes),
        f"≈ {size_text(hit.best.needs_bytes)}",
        _RUNS[hit.best.runs_on],
        count_text(result.downloads),
        _licence(hit),
    )


def _short(file: str) -> str:
    """What tells a file from others of its repository, and `mmd pull` understands: "Q4_K_M"."""
    from mmd.registry.formats.quant import named_quant

    if file.endswith(".safetensors"):
        return "safetensors"
    return named_quant(file) or file.rpartition("/")[2]


def _licence(hit: SearchHit) -> str:
    from mmd.registry.licence import Terms, terms

    licence = hit.result.licence or "unknown"
    # Not its name as well: there is no room for both, and `mmd pull` tells it.
    said = "non-commercial" if terms(licence) is Terms.NON_COMMERCIAL else licence
    return said + (", gated" if hit.result.gated else "")


def _say_what_is_left(
    text: str, filters: Sequence[str], shown: Sequence[SearchHit], hidden: int, unsupported: Mapping[str, int]
) -> None:
    if hidden:
        more = "more " if shown else ""
        does_not = "does not" if hidden == 1 else "do not"
        say(f"{hidden} {more}{does_not} fit on this machine; see them: {_again('--all', *filters, *text.split())}")
    if unsupported:
        kinds = ", ".join(f"{number} {kind}" for kind, number in sorted(unsupported.items(), key=lambda pair: -pair[1]))
        say(f"Not shown, as no engine here serves them: {kinds}")
    if shown:
        say(f"Get the first: mmd pull {shlex.quote(shown[0].result.id)}")
    elif filters and not hidden:
        say(f"The hub has nothing of this kind that is called {text!r}.")
        say(f"Try it without options: {_again(*text.split())}")
    elif not hidden:
        say(f"The hub has nothing that is called {text!r} and that an engine here serves.")
        say(f"Try fewer words: {_again(text.split(maxsplit=1)[0])}")


def _again(*words: str) -> str:
    return shlex.join(["mmd", "search", *words])


def _filters(gated: bool | None, **given: str | None) -> tuple[str, ...]:
    """The options that narrow a search, as they are written."""
    words = [word for name, value in given.items() if value for word in (f"--{name}", value)]
    return (*words, *(() if gated is None else ("--gated" if gated else "--no-gated",)))
