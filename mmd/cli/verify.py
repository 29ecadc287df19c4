"""The verb about whether files are still what they are to be: verify."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from mmd.cli import parameters
from mmd.cli.output import NO_MODEL, print_json, say
from mmd.quantities import size_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mmd.registry.verification import Finding


@click.command(short_help="Whether models' files are what they should be.")
@parameters.model_ids
@click.option("--trust", is_flag=True, help="Take what is there now for what it is to be, whatever was known.")
@parameters.as_json
def verify(model_ids: tuple[str, ...], trust: bool, as_json: bool) -> None:
    """Compare models' files with their hashes; all of them without an ID.

    The hashes are those that the hub told at the download. Where none is known, what is there now is hashed, and that
    is compared from then on. Needs no network and changes no file of a model.
    """
    from mmd.cli.transfer import Transfer
    from mmd.errors import WrongUsage
    from mmd.registry.store import Registry
    from mmd.registry.verification import FAILURES, Verdict, Verification

    if trust and not model_ids:
        raise WrongUsage("--trust wants to be told whom", hint="mmd verify ID --trust")
    registry = Registry()
    models = [registry.get(model_id) for model_id in dict.fromkeys(model_ids)] or registry.all()
    verification = Verification(models, trust=trust)
    with Transfer("verified", verification.bytes_to_read) as transfer:
        findings = verification.run(transfer)
    if as_json:
        print_json(findings)
    elif not models:
        say(NO_MODEL)
    else:
        for model in models:
            _print_model(model.id, [finding for finding in findings if finding.model == model.id])
        if new := sum(finding.verdict is Verdict.RECORDED for finding in findings):
            say(f"Nothing was known of {new} file{'s' if new != 1 else ''}: what is there now is trusted,")
            say("and compared with from here on. Whether it was intact before, nobody here can tell.")
    if any(finding.verdict in FAILURES for finding in findings):
        sys.exit(1)


def _print_model(model_id: str, findings: Sequence[Finding]) -> None:
    from mmd.registry.verification import FAILURES, Verdict

    failures = [finding for finding in findings if finding.verdict in FAILURES]
    recorded = [finding for finding in findings if finding.verdict is Verdict.RECORDED]
    size = (
        f"{len(findings)} file{'s' if len(findings) != 1 else ''}, {size_text(sum(one.size_bytes for one in findings))}"
    )
    if failures:
        click.echo(f"{model_id}: not what it should be: {len(failures)} of {size}")
        for finding in failures:
            _print_failure(finding)
    elif len(recorded) == len(findings):
        click.echo(f"{model_id}: recorded ({size})")
    else:
        click.echo(f"{model_id}: intact ({size})")


def _print_failure(finding: Finding) -> None:
    click.echo(f"  {finding.path}: {finding.verdict}{f' ({finding.reason})' if finding.reason else ''}")
    if finding.expected:
        said_by = {"hub": "as the hub told", "here": "as it was hashed here", None: "as it was"}[finding.origin]
        click.echo(f"    expected  {finding.expected}  {said_by}")
        click.echo(f"    found     {finding.found}")
    click.echo(f"    → {finding.mend}")
