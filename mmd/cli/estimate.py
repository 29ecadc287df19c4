"""The verb estimate: the memory that a model needs on this machine, and changes that let it fit."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mmd.cli import parameters
from mmd.cli.aio import wait_for
from mmd.cli.output import print_json, say

if TYPE_CHECKING:
    from mmd.control.memory.estimate import Answer


@click.command(short_help="Estimate the memory that a model needs.")
@click.argument("asked", metavar="ID|PATH|REPO[:FILE]", type=parameters.EstimateArgument())
@click.option(
    "--context",
    type=click.IntRange(min=1),
    metavar="N",
    help="Estimate for a context of N tokens. Default: the largest that fits.",
)
@click.option("--file", metavar="NAME", help="Estimate this file of a repository that has several models.")
@parameters.machine_file
@click.option("--no-engine", is_flag=True, help="Use formulas only; otherwise llama-server runs for half a second.")
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
    """Estimate the memory that a model needs, before it is downloaded or started.

    The exit status is 4 if the model does not fit.
    """
    from mmd.control.memory.estimate import Estimator
    from mmd.control.memory.target import estimate_target
    from mmd.machine import load_machine, read_machine
    from mmd.settings import read_settings

    machine, settings = load_machine(machine_file) if machine_file else read_machine(), read_settings()
    about = estimate_target(asked, machine, settings, file)
    _measure(about.model.id)
    estimating = Estimator(machine, settings, is_here=machine_file is None)
    answer = estimating.answer(about.model, context, candidates=about.candidates, asks_engine=not no_engine)
    if not answer.estimate.fits and (others := about.alternatives()):
        candidates = (*about.candidates, *others)
        answer = estimating.answer(about.model, context, candidates=candidates, asks_engine=not no_engine)
    if as_json:
        from mmd.cli.memory import for_json

        print_json(for_json(answer.estimate))
    else:
        click.secho(about.name, bold=True, nl=not about.why)
        if about.why:
            click.echo(f", {about.why}")
        _print(answer)
    if answer.note:
        say(f"mmd: {answer.note}")
    if not answer.estimate.fits:
        from mmd.errors import DoesNotFit, outcome_of

        click_context.exit(outcome_of(DoesNotFit).exit_status)


def _measure(model_id: str) -> None:
    """Measure the model if it is running and was not measured since its start: that is better than any formula."""
    from mmd.control.memory.starts_log import is_unmeasured

    if not is_unmeasured(model_id):
        return
    from mmd.control.memory.measure import measure_now
    from mmd.errors import ManagerUnreachable

    with suppress(ManagerUnreachable):  # then no model is running, and the socket is stale
        wait_for(measure_now())


def _print(answer: Answer) -> None:
    from mmd.cli.memory import needs_text, parts_text, suggestion_texts

    would_do = suggestion_texts(answer.estimate)
    for name, value in (
        ("needs", needs_text(answer.estimate)),
        ("", parts_text(answer.estimate)),
        *((("better with" if not number else ""), text) for number, text in enumerate(would_do)),
        ("engine", answer.engine or "none installed that can serve it; see: mmd engine list"),
    ):
        click.echo(f"  {name:<13} {value}")
