"""The verb that gets a model from the hub: pull."""

from __future__ import annotations

import os
import signal
from shlex import quote
from typing import TYPE_CHECKING

import click

from mmd.cli import parameters
from mmd.cli.output import licence_text, print_json, say, summary
from mmd.quantities import size_text

if TYPE_CHECKING:
    from mmd.control.models.search import Choice
    from mmd.registry.hub.register import RepoSnapshot


@click.command()
@click.argument("model", metavar="REPO[:FILE]")
@click.option("--revision", metavar="NAME", help="A branch, tag or commit; else main.")
@click.option("--id", "model_id", metavar="ID", help="The name to give it; else one is made from its own.")
@parameters.as_json
def pull(model: str, revision: str | None, model_id: str | None, as_json: bool) -> None:
    """Download a model from the Hugging Face hub and register it.

    REPO is OWNER/NAME or the address of a page; FILE a file in it, or a word of its name: Q4_K_M. Without a FILE it is
    the one that suits this machine. What has come before Ctrl-C or a kill is kept, and the same command goes on
    from there. HF_ENDPOINT, HF_TOKEN, HF_HOME and HF_HUB_OFFLINE hold as for all tools, and other tools find what was
    downloaded.
    """
    from huggingface_hub import constants

    from mmd.cli.transfer import Download
    from mmd.control.models.search import choose_to_run
    from mmd.control.state.model_info import model_info
    from mmd.machine import read_machine
    from mmd.registry.hub.progress import Progress
    from mmd.registry.hub.reference import parse
    from mmd.registry.hub.register import download_and_register, resolve
    from mmd.settings import read_settings

    reference = parse(model, constants.ENDPOINT)
    try:
        known = resolve(reference.repository, revision or reference.revision)
        choice = choose_to_run(known, reference.file, read_machine(), read_settings())
        selection = choice.selection
        _say_what_comes(known, choice)
        begun = Progress(0, selection.total_bytes, 0, len(selection.files))
        with Download(begun) as line:
            pulled = download_and_register(known, selection, line.show, id=model_id)
    except KeyboardInterrupt:
        say(f"mmd: what has come is kept; go on with: mmd pull {quote(model)}{_options(revision, model_id)}")
        _die_of_interrupt()
    if as_json:
        print_json(model_info(pulled))
        return
    click.echo(pulled.id)
    say(f"{summary(pulled)}; start it with: mmd activate {pulled.id}")


def _say_what_comes(known: RepoSnapshot, choice: Choice) -> None:
    repository, selection = known.repository, choice.selection
    if known.offline_error is not None:
        say(f"mmd: {known.offline_error.message}; what the cache has is registered")
    files = f" in {len(selection.files)} files" if len(selection.files) > 1 else ""
    why = f": {choice.why}" if choice.why else ""
    say(f"{repository.id}: {selection.file}, {size_text(selection.total_bytes)}{files}{why}")
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
