"""The verb that looks for what is wrong; so far it tells how good the estimates are."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from mmd.cli import parameters
from mmd.cli.loop import wait_for
from mmd.cli.text import gib, print_json, print_named_table, say

if TYPE_CHECKING:
    from mmd.control.starts import Start

_HEADING = ("MODEL", "ENGINE", "CONTEXT", "PART", "FORETOLD", "MEASURED", "OFF BY")


@click.command()
@click.option("--estimates", is_flag=True, help="What the starts here took of the memory, beside what was foretold.")
@click.option("--measure", is_flag=True, hidden=True)  # run by mmd-measure.service
@parameters.as_json
def doctor(estimates: bool, measure: bool, as_json: bool) -> None:
    """How well this machine is known."""
    from mmd.control.starts import kept
    from mmd.errors import WrongUsage

    if not estimates and not measure:
        raise WrongUsage("what shall the doctor look at?", hint="mmd doctor --estimates")
    wait_for(_measure())
    if not estimates:
        return
    starts = kept()
    if as_json:
        print_json([asdict(start) | {"errors": start.errors} for start in starts])
    elif starts:
        print_named_table(_HEADING, [row for start in starts for row in _rows(start)])
    else:
        say("No start has been measured yet. Measure one: mmd activate ID && mmd doctor --estimates")


async def _measure() -> None:
    """Whoever is resident and was not measured yet."""
    from mmd.control.learning import learn_now
    from mmd.errors import ManagerUnreachable

    try:
        await learn_now()
    except ManagerUnreachable as error:
        say(f"mmd: {error.message}; only what was measured before is shown")


def _rows(start: Start) -> list[tuple[str, ...]]:
    about = (start.model, start.engine, str(start.context))
    return [
        (
            *(about if not number else ("", "", "")),
            name.removesuffix("_bytes"),
            gib(start.predicted[name]),
            gib(start.measured[name]),
            f"{error:+.1%}",
        )
        for number, (name, error) in enumerate(start.errors.items())
    ]
