"""The verb doctor: check this machine, and print commands that repair what is wrong."""

from __future__ import annotations

import sys
import textwrap
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from mmd.cli import parameters
from mmd.cli.aio import wait_for
from mmd.cli.output import print_json, print_named_table, say
from mmd.quantities import size_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mmd.control.doctor.diagnosis import CheckResult
    from mmd.control.memory.starts_log import StartRecord

_HEADING = ("MODEL", "ENGINE", "CONTEXT", "PART", "PREDICTED", "MEASURED", "ERROR")
# Words, so that they are readable without colours.
_MARKS = {"ok": ("ok", "green"), "warning": ("warn", "yellow"), "failed": ("FAIL", "red"), "skipped": ("-", "")}
_MARK_WIDTH = 6


@click.command(short_help="Find out what is wrong and how to repair it.")
@click.option("--offline", is_flag=True, help="Skip the checks that need the hub.")
@click.option("--estimates", is_flag=True, help="Show predicted and measured memory of the starts on this machine.")
@click.option("--measure", is_flag=True, hidden=True)  # run by mmd-measure.service
@parameters.as_json
def doctor(offline: bool, estimates: bool, measure: bool, as_json: bool) -> None:
    """Find out what is wrong and how to repair it: one line for each check, with a command to paste below.

    The first failed line is usually the cause of those after it. Nothing is changed. The exit status is 1 if a check
    failed, and 0 with warnings only.
    """
    if estimates or measure:
        wait_for(_measure())
    if estimates:
        _show_estimates(as_json)
    if estimates or measure:
        return
    from mmd.control.doctor.checks import run_checks

    results = run_checks(offline=offline)
    if as_json:
        print_json(results)
    else:
        _print(results)
    if any(result.state == "failed" for result in results):
        sys.exit(1)


def _print(results: Sequence[CheckResult]) -> None:
    name_width = max(len(result.check) for result in results) + 2
    last = ""
    for result in results:
        if result.state != "skipped":
            _print_result(result, name_width, is_named=result.check != last)
            last = result.check
    for message in dict.fromkeys(result.message for result in results if result.state == "skipped"):
        names = dict.fromkeys(result.check for result in results if result.message == message)
        click.echo(f"{_MARKS['skipped'][0].ljust(_MARK_WIDTH)}{', '.join(names)}: {message}")
    say(_summary(results))


def _print_result(result: CheckResult, name_width: int, *, is_named: bool) -> None:
    """Wrap the message to the width of a terminal, but not the hint, so that it can be pasted."""
    mark, colour = _MARKS[result.state]
    name = result.check if is_named else ""
    indent = " " * (_MARK_WIDTH + name_width)
    text = result.message
    if sys.stdout.isatty():
        from shutil import get_terminal_size

        width = max(get_terminal_size().columns, len(indent) + 20)
        text = textwrap.fill(
            text, width, initial_indent=indent, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
        ).lstrip()
    click.echo(click.style(mark.ljust(_MARK_WIDTH), fg=colour or None) + name.ljust(name_width) + text)
    if result.hint:
        click.echo(" " * _MARK_WIDTH + click.style("→ ", dim=True) + result.hint)


def _summary(results: Sequence[CheckResult]) -> str:
    failed, warned = (sum(result.state == state for result in results) for state in ("failed", "warning"))
    warnings = f"{warned} warning{'s' if warned != 1 else ''}"
    if failed:
        more = f", {warnings}" if warned else ""
        return f"\n{failed} failed{more}. Start with the first failed line."
    return f"\nNothing is broken; {warnings}." if warned else "\nAll checks passed."


def _show_estimates(as_json: bool) -> None:
    from mmd.control.memory.starts_log import read_starts

    starts = read_starts()
    if as_json:
        print_json([asdict(start) | {"errors": start.errors} for start in starts])
    elif starts:
        print_named_table(_HEADING, [row for start in starts for row in _rows(start)])
    else:
        say("No start has been measured yet. Measure one: mmd activate ID && mmd doctor --estimates")


async def _measure() -> None:
    """Measure resident models that have not been measured yet."""
    from mmd.control.memory.measure import measure_now
    from mmd.errors import ManagerUnreachable

    try:
        await measure_now()
    except ManagerUnreachable as error:
        say(f"mmd: {error.message}; showing earlier measurements only")


def _rows(start: StartRecord) -> list[tuple[str, ...]]:
    about = (start.model, start.engine, str(start.context))
    return [
        (
            *(about if not number else ("", "", "")),
            name.removesuffix("_bytes"),
            size_text(start.predicted[name]),
            size_text(start.measured[name]),
            f"{error:+.1%}",
        )
        for number, (name, error) in enumerate(start.errors.items())
    ]
