"""Verbs about engines: list, install, remove."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mmd.cli import parameters
from mmd.cli.live_line import LiveLine
from mmd.cli.output import print_json, print_table, say

if TYPE_CHECKING:
    from mmd.control.install.engines import EngineStatus

_engine_name = click.argument("name", metavar="vllm|llama.cpp", type=parameters.EngineName())


@click.group()
def engine() -> None:
    """Manage the programs that serve models."""


@engine.command("list")
@parameters.as_json
def list_engines(as_json: bool) -> None:
    """List the engines in mmd's order of preference."""
    from mmd.control.install.engines import engine_statuses
    from mmd.settings import read_settings

    statuses = engine_statuses(read_settings())
    if as_json:
        print_json(statuses)
        return
    rows = [
        (
            status.name,
            status.version or ("broken" if status.problem else "not installed"),
            ", ".join(status.formats),
            str(status.models or ""),
            "yes" if status.sleeps else "",
            _where(status),
        )
        for status in statuses
    ]
    print_table(("ENGINE", "VERSION", "SERVES", "MODELS", "SLEEPS", "WHERE"), rows)
    for status in statuses:
        if status.problem:
            say(f"{status.name}: {status.hint}")


@engine.command()
@_engine_name
@click.option("--version", metavar="V", help="Install this version instead of the newest.")
@click.option("--cpu", "for_cpu", is_flag=True, help="Install a build for the CPU even if there is a GPU.")
def install(name: str, version: str | None, for_cpu: bool) -> None:
    """Install an engine into mmd's own folder.

    This takes minutes. If it is interrupted, run the same command again to continue. A newer version is installed next
    to the current one: running models keep the old version until they are restarted.
    """
    from mmd.control.install.engines import install_engine

    began = time.monotonic()
    shown = _Progress()
    try:
        done, kept = install_engine(name, version=version, for_cpu=for_cpu, progress=shown)
    except KeyboardInterrupt:
        shown.clear()
        say(f"Interrupted; the installed part is kept. Continue: mmd engine install {name}")
        raise
    finally:
        shown.clear()
    made = f"{name} {done.engine.version} ({done.engine.package})"
    if done.is_new:
        say(f"{made} installed in {time.monotonic() - began:.0f} s")
    else:
        say(f"{made} is already installed" + ("" if version else " and is the newest"))
    if done.without:
        say(f"Installed without {', '.join(done.without)} (no builds for CPUs): audio and video input do not work")
    for older in kept:
        say(f"{older.folder} is kept for {', '.join(older.users)}. Remove it later: mmd engine install {name}")


@engine.command()
@_engine_name
def remove(name: str) -> None:
    """Remove an engine that mmd installed."""
    from mmd.control.install.engines import remove_engine
    from mmd.settings import read_settings

    remove_engine(name, read_settings())
    say(f"{name} removed.")


@engine.command(hidden=True)
@click.argument("name")
@click.argument("program", type=click.Path(path_type=Path))
def confirm(name: str, program: Path) -> None:
    """Compare what was read from an engine's files with its --help; run by mmd-confirm.service."""
    from mmd.control.install.engines import confirm_engine

    confirm_engine(name, program)


def _where(status: EngineStatus) -> str:
    """Return the program's path in a form to paste; for a missing engine the problem or a hint."""
    if status.place is None or status.version is None:
        return status.problem or status.hint
    home = f"{Path.home()}/"
    place = f"~/{status.place.removeprefix(home)}" if status.place.startswith(home) else status.place
    return f"{place} ({status.origin})"


class _Progress:
    """The progress of an installation: a live line on a terminal, a line for each step elsewhere."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._line = LiveLine()
        self._text = ""

    def step(self, text: str) -> None:
        if self._line.is_on_terminal:
            self.detail(text)
        else:
            say(text)

    def detail(self, text: str) -> None:
        self._text = text
        self.still()

    def still(self) -> None:
        self._line.draw(f"{time.monotonic() - self._began:5.0f} s · {self._text}")

    def clear(self) -> None:
        self._line.clear()
