"""The verb pull: download a model from the hub."""

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
@click.option("--revision", metavar="NAME", help="Download this branch, tag or commit instead of main.")
@parameters.new_id
@parameters.as_json
def pull(model: str, revision: str | None, model_id: str | None, as_json: bool) -> None:
    """Download a model from the Hugging Face hub and register it.

    REPO is OWNER/NAME or the URL of its page. FILE is a file in it, or a word of its name such as Q4_K_M; without FILE,
    mmd chooses the model that suits this machine. After Ctrl-C or a kill, the same command continues the download.
    HF_ENDPOINT, HF_TOKEN, HF_HOME and HF_HUB_OFFLINE apply, and other tools can use the downloaded files.
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
        snapshot = resolve(reference.repository, revision or reference.revision)
        choice = choose_to_run(snapshot, reference.file, read_machine(), read_settings())
        selection = choice.selection
        _print_choice(snapshot, choice)
        initial = Progress(0, selection.total_bytes, 0, len(selection.files))
        with Download(initial) as line:
            pulled = download_and_register(snapshot, selection, line.show, id=model_id)
    except KeyboardInterrupt:
        say(f"mmd: the downloaded part is kept. Continue: mmd pull {quote(model)}{_options(revision, model_id)}")
        _end_by_sigint()
    if as_json:
        print_json(model_info(pulled))
        return
    click.echo(pulled.id)
    say(f"{summary(pulled)}; start it: mmd activate {pulled.id}")


def _print_choice(snapshot: RepoSnapshot, choice: Choice) -> None:
    repository, selection = snapshot.repository, choice.selection
    if snapshot.offline_error is not None:
        say(f"mmd: {snapshot.offline_error.message}; using the cache")
    files = f" in {len(selection.files)} files" if len(selection.files) > 1 else ""
    why = f": {choice.why}" if choice.why else ""
    say(f"{repository.id}: {selection.file}, {size_text(selection.total_bytes)}{files}{why}")
    if repository.licence:
        say(f"licence: {licence_text(repository.licence)}")


def _options(revision: str | None, model_id: str | None) -> str:
    return "".join(
        f" {option} {quote(value)}" for option, value in (("--revision", revision), ("--id", model_id)) if value
    )


def _end_by_sigint() -> None:
    """End by SIGINT, so that a calling script ends, too. Do it at once, without waiting for network threads."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGINT)
