"""The verbs default, startup and boot: what is loaded when the machine starts."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING

import click

from mmd.cli import parameters
from mmd.cli.aio import wait_for
from mmd.cli.lingering import say_how_to_linger
from mmd.cli.output import say

if TYPE_CHECKING:
    from mmd.control.lifecycle.boot import BootReport


@click.command()
@parameters.some_model_id
@click.option("--none", "no_default", is_flag=True, help="Set no default model.")
def default(model_id: str | None, no_default: bool) -> None:
    """Print or set the default model.

    The default model is loaded when the machine starts, before the first request.
    """
    from mmd.control.models.startup import default_of, set_no_default
    from mmd.settings import read_settings

    if model_id is not None and no_default:
        raise click.UsageError("--none cannot be combined with an ID")
    if model_id is not None:
        _set(model_id, "active")
    elif no_default:
        former = set_no_default()
        say("There is no default model now.")
        _say_former(former)
    elif (now := default_of(read_settings())) is not None:
        click.echo(now)
    else:
        say("There is no default model. Set one: mmd default ID")


@click.command()
@parameters.model_id
@click.argument("mode", type=click.Choice(["disabled", "sleep", "active"]), required=False)
def startup(model_id: str, mode: str | None) -> None:
    """Print or set what happens to a model when the machine starts.

    \b
      disabled   nothing; it is loaded at its first request
      sleep      it is loaded and put to sleep, so that it wakes quickly
      active     it is loaded as the default model, like: mmd default ID
    """
    from mmd.control.models.startup import startup_of

    if mode is None:
        click.echo(startup_of(model_id))
    else:
        _set(model_id, mode)


@click.command()
def boot() -> None:
    """Load the models that are configured for startup.

    Models with startup mode sleep are loaded and put to sleep, one after another; then the default model is loaded.

    mmd-boot.service runs this when the machine starts. It does not unload any model.
    """
    from mmd.control.lifecycle.boot import boot as carry_out
    from mmd.control.lifecycle.controller import Controller

    async def work() -> BootReport:
        async with Controller() as controller:
            return await carry_out(controller)

    report = wait_for(work())
    for model_id, reason in report.skipped.items():
        say(f"{model_id} not loaded: {reason}")
    for error in report.failed.values():
        say(f"{error.message}\n  → {error.hint}")
    parts = [f"{name} sleeps" for name in report.asleep] + ([f"{report.active} is active"] if report.active else [])
    if report.yielded:
        parts.append(report.yielded)
    if parts or not (report.skipped or report.failed):
        say("; ".join(parts) or "No model is configured for startup. Set one: mmd default ID")
    if report.failed:
        sys.exit(1)


_MEANINGS = {
    "disabled": "is not loaded when the machine starts",
    "sleep": "is loaded and put to sleep when the machine starts",
    "active": "is loaded when the machine starts",
}


def _set(model_id: str, mode: str) -> None:
    from mmd.control.install.service import loads_at_startup
    from mmd.control.models.startup import set_startup
    from mmd.plan.boot import Startup

    former = set_startup(model_id, Startup(mode))
    say(f"{model_id} {_MEANINGS[mode]}.")
    _say_former(former)
    if mode == "sleep":
        _warn_if_it_cannot_sleep(model_id)
    if mode != "disabled":
        if loads_at_startup():
            say_how_to_linger()
        else:
            say("This needs mmd's units: mmd install")


def _warn_if_it_cannot_sleep(model_id: str) -> None:
    """Warn about a problem that the next boot would only log, for example that the engine cannot sleep."""
    from mmd.control.lifecycle.planner import plan_launch
    from mmd.errors import MmdError
    from mmd.machine import read_machine
    from mmd.registry.store import Registry
    from mmd.settings import read_settings

    try:
        launch = plan_launch(Registry().get(model_id), read_machine(), read_settings())
    except MmdError as error:
        say(f"It cannot be loaded now: {error.message}")
    else:
        if launch.sleep is None:
            say(f"But {launch.title} cannot sleep, so the model is skipped. Load it awake: mmd default {model_id}")


def _say_former(former: Iterable[str]) -> None:
    for model_id in former:
        say(f"{model_id} was the default, and is no longer loaded.")
        say(f"Load it asleep: mmd startup {model_id} sleep")
