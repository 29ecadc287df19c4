"""The verb verify: compare files with their hashes."""

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


@click.command(short_help="Check that models' files are intact.")
@parameters.model_ids
@click.option("--trust", is_flag=True, help="Accept the current files as correct and replace the recorded hashes.")
@parameters.as_json
def verify(model_ids: tuple[str, ...], trust: bool, as_json: bool) -> None:
    """Compare the files of models with their hashes; without ID, of all models.

    The hashes are the hub's, recorded at the download. For a file without a recorded hash, the current hash is recorded
    and used from then on. This needs no network and changes no model file.
    """
    from mmd.cli.transfer import Transfer
    from mmd.errors import WrongUsage
    from mmd.registry.store import Registry
    from mmd.registry.verification import FAILURES, Verdict, Verification

    if trust and not model_ids:
        raise WrongUsage("--trust needs a model ID", hint="mmd verify ID --trust")
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
            say(f"{new} file{'s' if new != 1 else ''} had no recorded hash: the current one is now the reference.")
            say("Earlier corruption cannot be detected.")
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
        click.echo(f"{model_id}: damaged or missing: {len(failures)} of {size}")
        for finding in failures:
            _print_failure(finding)
    elif len(recorded) == len(findings):
        click.echo(f"{model_id}: recorded ({size})")
    else:
        click.echo(f"{model_id}: intact ({size})")


def _print_failure(finding: Finding) -> None:
    click.echo(f"  {finding.path}: {finding.verdict}{f' ({finding.reason})' if finding.reason else ''}")
    if finding.expected:
        source = {"hub": "from the hub", "here": "recorded here", None: "recorded"}[finding.origin]
        click.echo(f"    expected  {finding.expected}  {source}")
        click.echo(f"    found     {finding.found}")
    click.echo(f"    → {finding.mend}")
