"""The verb search: find models on the hub."""

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


@click.command(short_help="Find models on the hub that run here.")
@click.argument("text", nargs=-1, required=True)
@click.option("--type", "type_", type=click.Choice(_TYPES), help="Show only models of this type.")
@click.option("--size", metavar="FROM..TO", help="Show only models of this many parameters: 7b..14b, ..4b, 30b..")
@click.option(
    "--licence",
    "--license",
    metavar="NAME",
    default="",
    help="Show only this licence; open: any that allows all use.",
)
@click.option("--gated/--no-gated", default=None, help="Show only gated models, or none of them.")
@click.option("--all", "everything", is_flag=True, help="Also show models that do not run here.")
@click.option(
    "--limit", type=click.IntRange(1, 100), metavar="N", default=20, show_default=True, help="Show at most N results."
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
    """Find models on the Hugging Face hub that run on this machine, best match first.

    Memory is estimated from file sizes only; mmd estimate REPO is more precise.
    """
    from mmd.control.models.search import hub_hit, hub_search, served_formats
    from mmd.errors import WrongUsage
    from mmd.machine import load_machine, read_machine
    from mmd.registry.hub.search import Query
    from mmd.registry.hub.size import parse_size
    from mmd.registry.record import ModelType
    from mmd.settings import read_settings

    if not " ".join(text).strip():
        raise WrongUsage("no search words given", hint="mmd search qwen 8b")
    minimum, maximum = parse_size(size)
    query = Query(
        text=" ".join(text),
        limit=limit,
        formats=served_formats(read_settings()),
        type=ModelType(type_) if type_ else None,
        licence=licence.lower(),
        gated=gated,
        min_parameters=minimum,
        max_parameters=maximum,
    )
    found = hub_search(query, load_machine(machine_file) if machine_file else read_machine())
    shown = [hit for hit in found.hits if everything or hit.runs]
    if as_json:
        print_json([hub_hit(hit) for hit in shown])
        return
    _print(shown)
    filters = _filters(gated, type=type_, size=size, licence=licence)
    _print_rest(query.text, filters, shown, len(found.hits) - len(shown), found.unsupported)


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
    """Return a short name for a file that `mmd pull` accepts, such as "Q4_K_M"."""
    from mmd.registry.formats.quant import named_quant

    if file.endswith(".safetensors"):
        return "safetensors"
    return named_quant(file) or file.rpartition("/")[2]


def _licence(hit: SearchHit) -> str:
    from mmd.registry.licence import Terms, terms

    licence = hit.result.licence or "unknown"
    # The column is too narrow for the licence's name, which `mmd pull` prints.
    shown = "non-commercial" if terms(licence) is Terms.NON_COMMERCIAL else licence
    return shown + (", gated" if hit.result.gated else "")


def _print_rest(
    text: str, filters: Sequence[str], shown: Sequence[SearchHit], hidden: int, unsupported: Mapping[str, int]
) -> None:
    if hidden:
        more = "more " if shown else ""
        do_not = "does not" if hidden == 1 else "do not"
        say(f"{hidden} {more}{do_not} fit on this machine. Show all: {_again('--all', *filters, *text.split())}")
    if unsupported:
        kinds = ", ".join(f"{number} {kind}" for kind, number in sorted(unsupported.items(), key=lambda pair: -pair[1]))
        say(f"Not shown, because no engine here serves them: {kinds}")
    if shown:
        say(f"Download the first: mmd pull {shlex.quote(shown[0].result.id)}")
    elif filters and not hidden:
        say(f"The hub has no models for {text!r} with these options.")
        say(f"Search without options: {_again(*text.split())}")
    elif not hidden:
        say(f"The hub has no models for {text!r} that an engine here serves.")
        say(f"Search for fewer words: {_again(text.split(maxsplit=1)[0])}")


def _again(*words: str) -> str:
    return shlex.join(["mmd", "search", *words])


def _filters(gated: bool | None, **given: str | None) -> tuple[str, ...]:
    """Return the options that narrow a search, as words of the command line."""
    words = [word for name, value in given.items() if value for word in (f"--{name}", value)]
    return (*words, *(() if gated is None else ("--gated" if gated else "--no-gated",)))
