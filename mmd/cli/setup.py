"""The verb setup: named sets of models that are resident together."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from mmd.cli import parameters
from mmd.cli.aio import wait_for
from mmd.cli.output import print_json, print_table, say
from mmd.quantities import size_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from mmd.control.lifecycle.setup_plan import PlannedMember, PlannedNow
    from mmd.control.models.setup_info import SetupInfo
    from mmd.registry.record import Model


@click.group()
def setup() -> None:
    """Manage setups: named sets of models that are resident together.

    \b
      mmd setup add rag CHAT EMBEDDER   define one
      mmd activate rag                  load its models together
      mmd sleep rag; mmd stop rag       act on its models
      mmd default rag                   load it when the machine starts
    """


@setup.command("list")
@parameters.as_json
def list_setups(as_json: bool) -> None:
    """List the setups and their models."""
    from mmd.cli.list_show import pairs_or_none
    from mmd.control.models.setup_info import setup_infos
    from mmd.registry.store import Registry
    from mmd.settings import read_settings

    setups = setup_infos(Registry().load(), read_settings(), wait_for(pairs_or_none()))
    if as_json:
        print_json(setups)
    elif setups:
        print_table(("SETUP", "MODELS", "STATUS", "NOTE"), [_row(one) for one in setups])
        for one in setups:
            if one.problem:
                say(f"mmd: {one.problem}")
    else:
        say("There is no setup. Define one: mmd setup add NAME ID ID")


@setup.command()
@click.argument("name", metavar="NAME", type=parameters.SetupName())
@parameters.as_json
def show(name: str, as_json: bool) -> None:
    """Show the models of a setup, and where each would lie.

    It is planned for a machine without other models: these are unloaded if their memory is needed.
    """
    from mmd.codec import to_builtins
    from mmd.control.lifecycle.setup_plan import planned_now
    from mmd.control.models.setup_info import setup_info
    from mmd.control.models.setups import require_setup
    from mmd.registry.store import Registry

    found, models = require_setup(name), Registry().load()
    now = wait_for(planned_now(found))
    if now.unknown:
        say(f"mmd: {now.unknown}; what is running is unknown")
    if as_json:
        print_json({**to_builtins(setup_info(found, models, now.pairs)), "plan": now.plan})
        return
    click.secho(found.name, bold=True)
    for title, value in (
        ("note", found.note),
        ("exposed", ", ".join(found.expose)),
        ("at startup", "loaded: it is the default" if found.startup == "active" else ""),
    ):
        if value:
            click.echo(f"  {title:<13} {value}")
    click.echo()
    print_table(("MODEL", "TYPE", "STATUS", "PLAN"), list(_member_rows(found.models, models, now)))
    if now.plan.problem:
        say(f"mmd: {now.plan.problem}\n  → {now.plan.hint}")


def _member_rows(
    members: Iterable[str], models: Mapping[str, Model], now: PlannedNow
) -> Iterator[tuple[str, str, str, str]]:
    from mmd.control.state.residencies import active_of, status_word
    from mmd.plan.residency import Pair, residency

    active, planned = active_of(now.pairs), {one.id: one for one in now.plan.members}
    for model_id in members:
        status = status_word(model_id, residency(now.pairs.get(model_id, Pair())), active)
        text = _plan_text(planned[model_id], now.device_names) if model_id in planned else ""
        yield model_id, models[model_id].facts.type, status, text


def _plan_text(member: PlannedMember, names: Mapping[str, str]) -> str:
    if not member.devices:
        return f"needs at least {size_text(member.least_bytes)}"
    where = " and ".join(f"{size_text(size)} of {names.get(one, one)}" for one, size in member.devices.items())
    return f"{where}, context {member.context}" if member.context else where


@setup.command()
@click.argument("name", metavar="NAME", type=parameters.SetupName())
@click.argument("model_ids", metavar="ID...", type=parameters.ModelId(), nargs=-1, required=True)
@click.option("--note", metavar="TEXT", help="Say what the setup is for.")
def add(name: str, model_ids: tuple[str, ...], note: str | None) -> None:
    """Define a setup, or replace the models of one.

    The setup is stored in mmd.toml.
    """
    from mmd.control.models.setups import define

    is_new = define(name, model_ids, note)
    say(f"{name} is {'a setup' if is_new else 'now a setup'} of {', '.join(model_ids)}. Load it: mmd activate {name}")


@setup.command()
@click.argument("name", metavar="NAME", type=parameters.SetupName())
def remove(name: str) -> None:
    """Remove a setup from mmd.toml. Its models stay, registered and loaded."""
    from mmd.control.models.setups import forget

    forget(name)
    say(f"{name} is no longer a setup.")


def _row(one: SetupInfo) -> tuple[str, str, str, str]:
    default = ["the default"] if one.startup == "active" else []
    return one.id, ", ".join(one.models), one.status, "; ".join([*([one.note] if one.note else []), *default])
