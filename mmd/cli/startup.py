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
    from mmd.control.models.setups import Selected
    from mmd.plan.boot import Default


@click.command()
@parameters.some_model_or_setup
@click.option("--last", is_flag=True, help="Load what was resident before the machine went down, as far as it fits.")
@click.option("--none", "no_default", is_flag=True, help="Set no default.")
def default(selection: Selected | None, last: bool, no_default: bool) -> None:
    """Print or set the default: a model or a setup.

    The default is loaded when the machine starts, before the first request. It unloads no other model.
    """
    if sum((selection is not None, last, no_default)) > 1:
        raise click.UsageError("only one of NAME, --last and --none can be given")
    if selection is not None:
        _set_default(selection.name)
    elif last:
        _restore_last()
    elif no_default:
        from mmd.control.models.startup import set_no_default

        former = set_no_default()
        say("There is no default now.")
        _say_former(former)
    else:
        _print_default()


def _set_default(name: str) -> None:
    from mmd.control.models.startup import set_default

    former = set_default(name)
    say(f"{name} {_MEANINGS['active']}.")
    _say_former(former)
    _say_what_it_needs()


def _restore_last() -> None:
    from mmd.control.models.startup import set_restore_last
    from mmd.control.state.last_resident import last_resident, record_now
    from mmd.errors import ManagerUnreachable

    former = set_restore_last()
    say("What is resident when the machine goes down is loaded when it starts.")
    try:
        wait_for(record_now())
    except ManagerUnreachable as error:
        say(f"mmd: {error.message}; what is resident now is unknown")
    else:
        say(f"Resident now: {', '.join(last_resident()) or 'no model'}")
    _say_former(former)
    _say_what_it_needs()


def _print_default() -> None:
    from mmd.control.models.startup import default_of
    from mmd.control.state.last_resident import last_resident
    from mmd.plan.boot import DefaultKind
    from mmd.settings import read_settings

    now = default_of(read_settings())
    if now is None:
        say("There is no default. Set one: mmd default ID")
    elif now.kind is DefaultKind.LAST:
        click.echo("--last")
        say(f"The next boot loads: {', '.join(last_resident()) or 'no model'}")
    else:
        click.echo(now.name)


@click.command()
@parameters.model_id
@click.argument("mode", type=click.Choice(["disabled", "sleep", "active"]), required=False)
def startup(model_id: str, mode: str | None) -> None:
    """Print or set what happens to a model when the machine starts.

    \b
      disabled   nothing; it is loaded at its first request
      sleep      it is loaded and put to sleep, so that it wakes quickly
      active     it is loaded as the default, like: mmd default ID
    """
    from mmd.control.models.startup import startup_of

    if mode is None:
        click.echo(startup_of(model_id))
    else:
        _set(model_id, mode)


@click.command()
def boot() -> None:
    """Load the models that are configured for startup.

    Models with startup mode sleep are loaded and put to sleep, one after another; then the default is loaded.

    mmd-boot.service runs this when the machine starts. It does not unload any model.
    """
    from mmd.control.lifecycle.boot import boot as carry_out
    from mmd.control.lifecycle.command import command_controller

    async def work() -> BootReport:
        async with command_controller() as controller:
            return await carry_out(controller)

    report = wait_for(work())
    for model_id, reason in report.skipped.items():
        say(f"{model_id} not loaded: {reason}")
    for error in report.failed.values():
        say(f"{error.message}\n  → {error.hint}")
    parts = [f"{name} sleeps" for name in report.asleep]
    if report.active:
        parts.append(f"{', '.join(report.active)} {'is active' if len(report.active) == 1 else 'are resident'}")
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
    from mmd.control.models.startup import set_startup
    from mmd.plan.boot import Startup

    former = set_startup(model_id, Startup(mode))
    say(f"{model_id} {_MEANINGS[mode]}.")
    _say_former(former)
    if mode == "sleep":
        _warn_if_it_cannot_sleep(model_id)
    if mode != "disabled":
        _say_what_it_needs()


def _say_what_it_needs() -> None:
    from mmd.control.install.service import loads_at_startup

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


def _say_former(former: Iterable[Default]) -> None:
    from mmd.plan.boot import DefaultKind

    for one in former:
        if one.kind is DefaultKind.LAST:
            say("What was resident before is no longer loaded.")
            continue
        say(f"{one.name} was the default, and is no longer loaded.")
        if one.kind is DefaultKind.MODEL:
            say(f"Load it asleep: mmd startup {one.name} sleep")
