"""The verb about memory: what a model needs here, and what would fit instead."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from mmd.cli import parameters
from mmd.cli.text import gib, print_json, say

if TYPE_CHECKING:
    from mmd.control.estimating import Answer
    from mmd.plan.estimate import Components

_DOES_NOT_FIT = 4

# As people call the components; what is nothing is not shown.
_PARTS = (
    ("weights_bytes", "weights"),
    ("kv_bytes", "keys and values"),
    ("state_bytes", "states"),
    ("compute_bytes", "computing"),
    ("projector_bytes", "projector"),
    ("overhead_bytes", "driver and libraries"),
)
_KNOWN_FROM = {
    "listed": "its size alone, which is a lower bound",
    "header": "the headers of its files, by formulas",
    "engine": "its engine, asked without the weights",
    "measured": "a start on this machine",
}


@click.command()
@click.argument("asked", metavar="ID|PATH|REPO[:FILE]")
@click.option("--context", type=click.IntRange(min=1), metavar="N", help="For so many tokens; else for what fits.")
@click.option("--file", metavar="NAME", help="Which file of the repository, where it holds several models.")
@parameters.machine_file
@click.option("--no-engine", is_flag=True, help="By formulas alone; asking llama-server takes half a second.")
@parameters.as_json
@click.pass_context
def estimate(
    click_context: click.Context,
    asked: str,
    context: int | None,
    file: str | None,
    machine_file: Path | None,
    no_engine: bool,
    as_json: bool,
) -> None:
    """What a model needs of the memory, before it is downloaded or started. Status 4: it does not fit."""
    from mmd.control.estimating import Estimating
    from mmd.control.present import estimate_json
    from mmd.control.subject import subject
    from mmd.machine import load_machine, read_machine
    from mmd.settings import read_settings

    about = subject(asked, file)
    machine = load_machine(machine_file) if machine_file else read_machine()
    estimating = Estimating(machine, read_settings(), is_here=machine_file is None)
    answer = estimating.answer(about.model, context, candidates=about.candidates, asks_engine=not no_engine)
    if as_json:
        print_json(estimate_json(answer.estimate))
    else:
        click.secho(about.name, bold=True)
        _print(answer)
    if answer.note:
        say(f"mmd: {answer.note}")
    if not answer.estimate.fits:
        click_context.exit(_DOES_NOT_FIT)


def _print(answer: Answer) -> None:
    found = answer.estimate
    left_bytes = answer.available_bytes - found.needs_bytes
    for name, value in (
        ("needs", f"{gib(found.needs_bytes)} ± {gib(found.error_bytes)} for a context of {found.context} tokens"),
        ("of that", _parts(found.components)),
        ("there are", f"{gib(answer.available_bytes)}: {_verdict(answer, left_bytes)}"),
        ("context", f"{found.max_context} tokens at the most" if found.max_context else "none is small enough"),
        ("engine", answer.engine or "none that could serve it is installed: mmd engine list"),
        ("known from", _KNOWN_FROM[found.tier]),
    ):
        click.echo(f"  {name:<13} {value}")
    for number, change in enumerate(found.suggestions):
        if not number:
            click.echo("\nWhat would do:")
        click.echo(f"  {change.change}, {gib(change.needs_bytes)}\n    {change.command}")


def _parts(components: Components) -> str:
    sizes = ((name, getattr(components, field)) for field, name in _PARTS)
    return " · ".join(f"{name} {gib(size_bytes)}" for name, size_bytes in sizes if size_bytes)


def _verdict(answer: Answer, left_bytes: int) -> str:
    found = answer.estimate
    if not found.fits:
        return f"it does not fit, by {gib(max(0, -left_bytes))}" if left_bytes < 0 else "it does not fit"
    if found.ram_bytes and found.on_gpu < 1:
        share = f"{found.on_gpu:.0%} of it on the GPU, {gib(found.ram_bytes)} in RAM"
        return f"it runs, more slowly than it could: {share}"
    return f"it fits, with {gib(left_bytes)} to spare" if left_bytes > 0 else "it fits"
