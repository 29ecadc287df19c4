"""Verbs about engines: list, install, remove."""

from __future__ import annotations

import shutil
import sys
import time
from pathlib import Path

import click

from mmd.cli import parameters
from mmd.cli.text import print_json, print_table, say


@click.group()
def engine() -> None:
    """The programs that serve models: which there are, and how to have one."""


@engine.command("list")
@parameters.as_json
def list_engines(as_json: bool) -> None:
    """Engines in the order in which mmd prefers them."""
    from mmd.control.engines import engine_statuses
    from mmd.settings import read_settings

    statuses = engine_statuses(read_settings())
    if as_json:
        from dataclasses import asdict

        print_json([asdict(status) for status in statuses])
        return
    rows = [
        (
            status.name,
            status.version or ("broken" if status.problem else "not installed"),
            ", ".join(status.formats),
            "sleeps" if status.sleeps else "",
            f"{status.place} ({status.origin})" if status.version else status.problem or status.hint,
        )
        for status in statuses
    ]
    print_table(("ENGINE", "VERSION", "SERVES", "", "WHERE"), rows)
    for status in statuses:
        if status.problem:
            say(f"{status.name}: {status.hint}")


@engine.command()
@click.argument("name", metavar="vllm|llama.cpp")
@click.option("--version", metavar="V", help="This version instead of the newest.")
def install(name: str, version: str | None) -> None:
    """Install an engine into a folder of mmd's own.

    It takes minutes. When it is interrupted, the same command goes on with what it has. A newer version goes beside the
    one there is: models that run keep theirs until they are started again.
    """
    from mmd.control.engines import install_engine

    began = time.monotonic()
    shown = _Progress()
    try:
        made = install_engine(name, version=version, progress=shown)
    except KeyboardInterrupt:
        shown.clear()
        say(f"Interrupted. What was fetched is kept; go on with: mmd engine install {name}")
        raise
    finally:
        shown.clear()
    say(f"{name} {made.version} is installed, after {time.monotonic() - began:.0f} s.")


@engine.command()
@click.argument("name", metavar="vllm|llama.cpp")
def remove(name: str) -> None:
    """Remove an engine that mmd installed."""
    from mmd.control.engines import remove_engine

    remove_engine(name)
    say(f"{name} is removed.")


@engine.command(hidden=True)
@click.argument("program", type=click.Path(path_type=Path))
def confirm(program: Path) -> None:
    """Hold what was read from vLLM's source against its --help; run by mmd-confirm.service."""
    from mmd.control.engines import confirm_engine

    confirm_engine(program)


class _Progress:
    """What an installation is doing: one line that is redrawn on a terminal, a line each elsewhere."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._redraws = sys.stderr.isatty()

    def __call__(self, line: str) -> None:
        if self._redraws:
            width = shutil.get_terminal_size().columns
            text = f"{time.monotonic() - self._began:5.0f} s · {line}"
            click.echo(f"\r\x1b[K{text[: width - 1]}", err=True, nl=False)
        else:
            say(line)

    def clear(self) -> None:
        if self._redraws:
            click.echo("\r\x1b[K", err=True, nl=False)
