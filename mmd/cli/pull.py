"""The verb that gets a model from the hub: pull."""

from __future__ import annotations

import os
import signal
from shlex import quote
from typing import TYPE_CHECKING

import click

from mmd.cli import parameters
from mmd.cli.text import gib, licence_text, print_json, say, summary

if TYPE_CHECKING:
    from mmd.registry.hub.files import Selection
    from mmd.registry.hub.obtain import Known


@click.command()
@click.argument("model", metavar="REPO[:FILE]")
@click.option("--revision", metavar="NAME", help="A branch, tag or commit; else main.")
@click.option("--id", "model_id", metavar="ID", help="The name to give it; else one is made from its own.")
@parameters.as_json
def pull(model: str, revision: str | None, model_id: str | None, as_json: bool) -> None:
    """Download a model from the Hugging Face hub and register it.

    REPO is OWNER/NAME or the address of a page; FILE a file in it, or a word of its name: Q4_K_M. Without a FILE it is
    the one that suits this machine. What has come before Ctrl-C or a power cut is kept, and the same command goes on
    from there. HF_ENDPOINT, HF_TOKEN, HF_HOME and HF_HUB_OFFLINE hold as for all tools, and other tools find what was
    downloaded.
    """
    from huggingface_hub import constants

    from mmd.cli.transfer import Download
    from mmd.control.present import model_json
    from mmd.plan.residency import Residency
    from mmd.registry.hub.obtain import look, obtain
    from mmd.registry.hub.progress import Progress
    from mmd.registry.hub.reference import parse

    reference = parse(model, constants.ENDPOINT)
    try:
        known = look(reference.repository, revision or reference.revision)
        selection, why = _chosen(known, reference.file)
        _say_what_comes(known, selection, why)
        begun = Progress(0, selection.total_bytes, 0, len(selection.files))
        with Download(begun) as line:
            pulled = obtain(known, selection, line.show, id=model_id)
    except KeyboardInterrupt:
        say(f"mmd: what has come is kept; go on with: mmd pull {quote(model)}{_options(revision, model_id)}")
        _die_of_interrupt()
    if as_json:
        print_json(model_json(pulled, Residency.ABSENT, None))
        return
    click.echo(pulled.id)
    say(f"{summary(pulled)}; start it with: mmd activate {pulled.id}")


def _chosen(known: Known, file: str | None) -> tuple[Selection, str]:
    """What to download, and why where nobody said."""
    from mmd.control.suited import suited
    from mmd.machine import read_machine
    from mmd.registry.hub.files import selections_in
    from mmd.registry.hub.obtain import choose
    from mmd.settings import read_settings

    if file is not None or len(selections_in(known.repository.files)) < 2:
        return choose(known, file), ""
    return suited(known.repository, read_machine(), read_settings())


def _say_what_comes(known: Known, selection: Selection, why: str) -> None:
    repository = known.repository
    if known.absence is not None:
        say(f"mmd: {known.absence.message}; what the cache has is registered")
    files = f" in {len(selection.files)} files" if len(selection.files) > 1 else ""
    say(f"{repository.id}: {selection.file}, {gib(selection.total_bytes)}{files}" + (f": {why}" if why else ""))
    if repository.licence:
        say(f"licence: {licence_text(repository.licence)}")


def _options(revision: str | None, model_id: str | None) -> str:
    return "".join(
        f" {option} {quote(value)}" for option, value in (("--revision", revision), ("--id", model_id)) if value
    )


def _die_of_interrupt() -> None:
    """At once, without waiting for those who read from the network; and a script that called us ends as well."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGINT)
