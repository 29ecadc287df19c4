"""The verbs activate, sleep, stop, events and logs."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from mmd.cli import parameters
from mmd.cli.aio import wait_for
from mmd.cli.output import print_json, print_table, say

if TYPE_CHECKING:
    from mmd.control.lifecycle.activation import Activation
    from mmd.control.lifecycle.controller import Controller
    from mmd.control.models.setups import Selected
    from mmd.control.state.swap_events import SwapEvent


@click.command()
@parameters.model_or_setup
@click.option("--now", is_flag=True, help="Cut running responses of the models that must leave.")
@click.option("--beside", is_flag=True, help="Unload no other model: fail if it does not fit beside them.")
@click.option("--ask-again", is_flag=True, help="Retry flags that the engine refused before (see mmd show).")
@parameters.as_json
def activate(selection: Selected, now: bool, beside: bool, ask_again: bool, as_json: bool) -> None:
    """Load a model, or the models of a setup together, unloading others only if they do not fit beside them.

    The command returns when they answer requests. If loading fails, what was unloaded is restored.
    """
    from mmd.cli.progress import shown_while_loading
    from mmd.cli.via_gateway import activate_by_gateway

    name, models = selection.name, selection.models

    async def work() -> Activation:
        # --beside unloads no model, so the gateway would have no running response to wait for.
        asked = None if beside else await shown_while_loading(name, models, activate_by_gateway(name, models, now=now))
        return asked or await _activated(selection, evicts=not beside)

    if selection.setup is not None and selection.setup.expose:
        from mmd.gateway.http.api_keys import require_key_to_expose

        require_key_to_expose()
    if ask_again:
        from mmd.control.state.refused_flags import RefusedFlags

        for model_id in models:
            RefusedFlags().forget(model_id)
    try:
        done = wait_for(work())
    except KeyboardInterrupt:
        say(f"\nIt keeps loading in the background. Check: mmd status. Cancel: mmd stop {name}")
        raise
    if as_json:
        print_json(done)
    elif done.evicted:
        say(f"{name} loaded in {done.seconds:.1f} s ({', '.join(done.evicted)} unloaded)")
    else:
        say(f"{name} is already loaded" if done.was_resident else f"{name} loaded in {done.seconds:.1f} s")
    if done.cut and not as_json:
        count = sum(done.cut.values())
        say(f"{count} running response{'s' if count > 1 else ''} of {', '.join(sorted(done.cut))} cut")


async def _activated(selection: Selected, *, evicts: bool) -> Activation:
    from mmd.cli.progress import shown_while_loading
    from mmd.control.install.service import start_gateway
    from mmd.control.lifecycle.command import command_controller

    async with command_controller() as controller:
        if selection.setup is None:
            work = controller.activate(selection.name, evicts=evicts)
        else:
            from mmd.control.lifecycle.setup_plan import activate_setup

            work = activate_setup(controller, selection.setup, evicts=evicts)
        done = await shown_while_loading(selection.name, selection.models, work)
        await start_gateway(controller.manager)
        if selection.setup is not None:
            from mmd.control.tunnel.setup_tunnels import open_setup

            await open_setup(controller.manager, selection.setup)
        return done


@click.command()
@parameters.some_model_or_setup
@click.option(
    "--level",
    type=int,
    metavar="N",
    help="1: keep the weights in RAM; 2: read them from disk at the next wake. Default: 1 if they fit into RAM.",
)
@click.option("--now", is_flag=True, help="Cut running responses of the model.")
def sleep(selection: Selected | None, level: int | None, now: bool) -> None:
    """Put a model, or the models of a setup, to sleep, which frees memory on the GPU.

    Without a name, put the active model to sleep. If its engine cannot sleep (llama.cpp), a model is stopped.
    """
    from mmd.cli.via_gateway import sleep_by_gateway

    name = selection.name if selection is not None else None

    async def work() -> tuple[tuple[str, ...], dict[str, int]]:
        done = await sleep_by_gateway(name, level, now=now)
        if done is not None:
            return done
        from mmd.control.lifecycle.command import command_controller

        async with command_controller() as controller:
            unloaded = [one for model_id in _models_of(selection) for one in await controller.sleep(model_id, level)]
            await _close_tunnels(controller, selection)
            return tuple(unloaded), {one.id: one.level for one in (await controller.status()).sleeping}

    unloaded, levels = wait_for(work())
    for one in unloaded:
        say(f"{one} sleeps at level {levels[one]}" if one in levels else f"{one} stopped")
    if not unloaded:
        state = f"already sleeps, at level {levels[name]}" if name in levels else "is not loaded"
        say(f"{name} {state}." if name else "No model is loaded.")


@click.command()
@parameters.some_model_or_setup
def stop(selection: Selected | None) -> None:
    """Stop a model's engine, or those of a setup; without a name, stop all engines."""
    from mmd.control.lifecycle.command import command_controller

    async def work() -> tuple[str, ...]:
        async with command_controller() as controller:
            ended = [one for model_id in _models_of(selection) for one in await controller.stop(model_id)]
            await _close_tunnels(controller, selection)
            return tuple(ended)

    ended = wait_for(work())
    for one in ended:
        say(f"{one} stopped")
    if not ended:
        say(f"{selection.name} is not running." if selection else "No model is running.")


def _models_of(selection: Selected | None) -> tuple[str | None, ...]:
    return selection.models if selection is not None else (None,)


async def _close_tunnels(controller: Controller, selection: Selected | None) -> None:
    """Close the tunnels that the activation of a setup opened."""
    if selection is not None and selection.setup is not None and selection.setup.expose:
        from mmd.control.tunnel.setup_tunnels import close_setup

        for model_id in await close_setup(controller.manager, selection.setup):
            say(f"{model_id} is no longer exposed.")


@click.command()
@click.option("-n", "--lines", default=20, show_default=True, metavar="N", help="Show the N newest swaps.")
@parameters.as_json
def events(lines: int, as_json: bool) -> None:
    """Show recent swaps and how long each phase took."""
    from mmd.control.state import swap_events as swaps

    kept = swaps.recent(lines)
    if as_json:
        print_json(kept)
    elif kept:
        rows = [
            (event.at[:19], event.model, event.outcome, f"{event.seconds:.2f} s", event_text(event)) for event in kept
        ]
        print_table(("WHEN (UTC)", "MODEL", "OUTCOME", "TOOK", ""), rows)
    else:
        say("No swap has been recorded yet. Make one: mmd activate ID")


@click.command()
@parameters.model_id
@click.option("-f", "--follow", is_flag=True, help="Keep printing new lines.")
@click.option("-n", "--lines", default=100, show_default=True, metavar="N", help="Show the N newest lines.")
def logs(model_id: str, follow: bool, lines: int) -> None:
    """Show the log of a model's engine, from the journal."""
    import shutil

    from mmd.errors import ProgramMissing
    from mmd.registry.store import Registry

    Registry().get(model_id)
    journalctl = shutil.which("journalctl")
    if journalctl is None:
        raise ProgramMissing(
            "journalctl is not on PATH, so the journal cannot be read", hint="sudo apt install systemd"
        )
    # By identifier, and from the whole journal: a user's journal file does not contain root's lines.
    words = [journalctl, "--quiet", f"--identifier={model_id}", f"_UID={os.getuid()}", f"--lines={lines}"]
    os.execv(journalctl, words + (["--follow"] if follow else []))


def event_text(event: SwapEvent) -> str:
    """Return the phases of a swap, or the cause of its failure."""
    if event.cause:
        return event.cause
    away = f"{event.why}; " if event.outcome == "away" else ""
    parts = away + ", ".join(
        f"{name.replace('_', ' ')} {seconds:.2f}" for name, seconds in event.phases.items() if seconds >= 0.005
    )
    left = (f"{name} unloaded{_reason(event.why_evicted.get(name, ''))}" for name in event.evicted)
    return "; ".join((parts, *left))


def _reason(why: str) -> str:
    return f" ({why})" if why else ""
