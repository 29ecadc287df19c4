"""Verbs about what is loaded when the machine comes up: default, startup, boot."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING

import click

from mmd.cli import parameters
from mmd.cli.aio import wait_for
from mmd.cli.lingering import say_how_it_lingers
from mmd.cli.output import say

if TYPE_CHECKING:
    from mmd.control.lifecycle.boot import BootReport


@click.command()
@parameters.some_model_id
@click.option("--none", "no_default", is_flag=True, help="Have no default model.")
def default(model_id: str | None, no_default: bool) -> None:
    """Print or set the default model.

    It is active when the machine has come up, before anybody asks for one.
    """
    from mmd.control.models.startup import default_of, set_no_default
    from mmd.settings import read_settings

    if model_id is not None and no_default:
        raise click.UsageError("--none goes without an ID")
    if model_id is not None:
        _set(model_id, "active")
    elif no_default:
        former = set_no_default()
        say("No model is the default.")
        _say_former(former)
    elif (now := default_of(read_settings())) is not None:
        click.echo(now)
    else:
        say("No model is the default. Set one: mmd default ID")


@click.command()
@parameters.model_id
@click.argument("mode", type=click.Choice(["disabled", "sleep", "active"]), required=False)
def startup(model_id: str, mode: str | None) -> None:
    """Print or set what a start of the machine does.

    \b
      disabled   nothing: it is loaded when it is asked for
      sleep      it is loaded and put to sleep, so that it wakes in no time
      active     it is the default model; the same as: mmd default ID
    """
    from mmd.control.models.startup import startup_of

    if mode is None:
        click.echo(startup_of(model_id))
    else:
        _set(model_id, mode)


@click.command()
def boot() -> None:
    """Load what is to be loaded at startup.

    What is to sleep, one after another, then the default model.

    mmd-boot.service does it when the machine comes up. It takes the GPU from nobody.
    """
    from mmd.control.lifecycle.boot import boot as carry_out
    from mmd.control.lifecycle.controller import Controller

    async def work() -> BootReport:
        async with Controller() as controller:
            return await carry_out(controller)

    report = wait_for(work())
    for model_id, reason in report.skipped.items():
        say(f"{model_id} is not loaded: {reason}")
    for error in report.failed.values():
        say(f"{error.message}\n  → {error.hint}")
    parts = [f"{name} sleeps" for name in report.asleep] + ([f"{report.active} is active"] if report.active else [])
    if report.yielded:
        parts.append(report.yielded)
    if parts or not (report.skipped or report.failed):
        say("; ".join(parts) or "Nothing is loaded at startup. To have a model then: mmd default ID")
    if report.failed:
        sys.exit(1)


_MEANINGS = {
    "disabled": "is not loaded when the machine comes up",
    "sleep": "is loaded and put to sleep when the machine comes up",
    "active": "is active when the machine has come up",
}


def _set(model_id: str, mode: str) -> None:
    from mmd.control.install.service import loads_at_startup
    from mmd.control.models.startup import set_startup
    from mmd.plan.boot import Startup

    former = set_startup(model_id, Startup(mode))
    say(f"{model_id} {_MEANINGS[mode]}.")
    _say_former(former)
    if mode == "sleep":
        _say_what_stands_in_the_way(model_id)
    if mode != "disabled":
        if loads_at_startup():
            say_how_it_lingers()
        else:
            say("That takes mmd's units: mmd install")


def _say_what_stands_in_the_way(model_id: str) -> None:
    """That the engine cannot sleep, say, which at the next start would be told to the journal alone."""
    from mmd.control.lifecycle.planner import plan_launch
    from mmd.errors import MmdError
    from mmd.machine import read_machine
    from mmd.registry.store import Registry
    from mmd.settings import read_settings

    try:
        launch = plan_launch(Registry().get(model_id), read_machine(), read_settings())
    except MmdError as error:
        say(f"As things are, it would fail: {error.message}")
    else:
        if launch.sleep is None:
            say(f"But {launch.title} cannot sleep: it is left out. To have it awake: mmd default {model_id}")


def _say_former(former: Iterable[str]) -> None:
    for model_id in former:
        say(f"{model_id} was the default, and is not loaded then any more.")
        say(f"To have it asleep: mmd startup {model_id} sleep")
