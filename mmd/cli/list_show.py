"""The verbs list and show."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mmd.cli import parameters
from mmd.cli.aio import wait_for
from mmd.cli.output import NO_MODEL, licence_text, print_json, print_named_table, say, summary
from mmd.quantities import size_text

if TYPE_CHECKING:
    from mmd.control.lifecycle.preview import Preview
    from mmd.machine import Machine
    from mmd.plan.estimate import Estimate
    from mmd.plan.idle import Rules
    from mmd.plan.launch import Flag, Launch
    from mmd.plan.residency import Pair
    from mmd.registry.record import Model

_FLAG_WIDTH = 20  # columns
_ALWAYS_SHOWN = 6  # columns of `mmd list`


@click.command("list")
@parameters.as_json
def list_models(as_json: bool) -> None:
    """List registered models and the state of each."""
    from mmd.control.models.aliases import names_of
    from mmd.control.state.residencies import active_of, status_word
    from mmd.plan.residency import Pair, residency
    from mmd.registry.store import Registry
    from mmd.settings import read_settings

    models, settings = Registry().load(), read_settings()
    names = names_of(models, settings)
    for warning in names.warnings():
        say(f"mmd: {warning}")
    pairs = wait_for(pairs_or_none())
    active = active_of(pairs)
    if as_json:
        from mmd.control.models.startup import startups
        from mmd.control.state.model_info import model_infos

        print_json(model_infos(models.values(), pairs, active, startups(settings), names.aliases))
        return
    heading = ("ID", "TYPE", "QUANT", "SIZE", "CONTEXT", "STATUS", "HOLDS", "ALSO CALLED")
    table = [
        (
            model.id,
            model.facts.type,
            model.facts.quant,
            size_text(model.facts.weights_bytes),
            _tokens(model.facts.context_length),
            status_word(model.id, residency(pairs.get(model.id, Pair())), active)
            + _AT_STARTUP[settings.model(model.id).startup],
            _held_size(pairs.get(model.id, Pair())),
            ", ".join(names.aliases[model.id]),
        )
        for model in models.values()
    ]
    if table:
        _print_models(heading, table)
    else:
        say(NO_MODEL)


def _print_models(heading: Sequence[str], table: Sequence[Sequence[str]]) -> None:
    """Print the table without the last columns that are empty in every row, as they are for most users."""
    shown = [at for at in range(len(heading)) if at < _ALWAYS_SHOWN or any(cells[at] for cells in table)]
    print_named_table([heading[at] for at in shown], [[cells[at] for at in shown] for cells in table])


@click.command()
@parameters.model_id
@parameters.machine_file
@click.option("--units", is_flag=True, help="Print the model's two units as unit files instead.")
@parameters.as_json
def show(model_id: str, machine_file: Path | None, units: bool, as_json: bool) -> None:
    """Show a model's facts, memory estimate, place and command.

    The place is where it would lie now, and what would be unloaded for it. Each flag of the command comes with its
    reason.
    """
    from mmd.control.lifecycle.controller import unit_texts
    from mmd.control.lifecycle.idle_rules import rules_of
    from mmd.control.lifecycle.planner import plan_launch
    from mmd.control.lifecycle.preview import occupants_of, preview, states_if_known
    from mmd.control.memory.estimate import Estimator
    from mmd.control.models.aliases import names_of
    from mmd.control.state.model_info import model_info
    from mmd.machine import load_machine, read_machine
    from mmd.registry.store import Registry
    from mmd.settings import read_settings

    model, settings, registered = Registry().get(model_id), read_settings(), Registry().load()
    aliases = names_of(registered, settings).aliases[model.id]
    machine = load_machine(machine_file) if machine_file else read_machine()
    states = None if machine_file or units else wait_for(states_if_known())
    if not units and not as_json:
        _print_model(model, aliases)
        _print_now(model_id, machine, states.pairs if states else None)
    launch = plan_launch(model, machine, settings)
    estimating = Estimator(machine, settings, is_here=machine_file is None)
    estimate = estimating.answer(model, asks_engine=False).estimate
    rules = rules_of(model.id, settings)
    occupants = occupants_of(states, machine, settings) if states else ()
    place = preview(model, machine, settings, occupants=occupants, registered=tuple(registered.values()))
    if units:
        for name, text in unit_texts(launch).items():
            click.echo(f"# {name}\n{text}")
    elif as_json:
        from mmd.cli.memory import for_json
        from mmd.codec import to_builtins
        from mmd.control.models.startup import startup_of
        from mmd.control.state.residencies import active_of
        from mmd.plan.residency import Pair

        here = wait_for(pairs_or_none())
        shown = to_builtins(
            model_info(model, here.get(model_id, Pair()), active_of(here), startup_of(model_id), aliases)
        )
        planned = {"launch": launch_record(launch), "estimate": for_json(estimate), "place": to_builtins(place)}
        print_json(shown | {"files": model.files, "idle": rules} | planned)
    else:
        _print_launch(launch, estimate, rules, _place_texts(place, _device_names(machine)))


async def pairs_or_none() -> Mapping[str, Pair]:
    """Return the units of each model; none without a user manager, which would run them."""
    from mmd.control.state.residencies import current_pairs
    from mmd.errors import ManagerUnreachable

    try:
        return await current_pairs()
    except ManagerUnreachable as error:
        say(f"mmd: {error.message}; what is running is unknown")
        return {}


_AT_STARTUP = {"active": ", the default", "sleep": ", sleeps at startup", "disabled": ""}


def launch_record(launch: Launch) -> dict[str, Any]:
    """Return what `--json` shows of a launch."""
    return {
        "engine": launch.engine,
        "title": launch.title,
        "argv": launch.argv,
        "environment": dict(launch.environment),
        "context": launch.context,
        "needs_bytes": launch.needs_bytes,
        "socket": launch.socket,
        "flags": [{"words": flag.words, "subject": flag.subject, "reason": flag.reason} for flag in launch.flags],
    }


def _held_size(pair: Pair) -> str:
    """Return what a model holds now of all devices; `mmd status` shows which. "" if it holds nothing."""
    from mmd.plan.residency import held_now
    from mmd.quantities import MIB

    held_mib = sum(held_now(pair).values())
    return size_text(held_mib * MIB) if held_mib else ""


def _holds_text(pair: Pair, names: Mapping[str, str]) -> str:
    """Return what a model holds now: "8.0 GiB of GPU 0". `names` are the devices' names for people."""
    from mmd.plan.residency import held_now
    from mmd.quantities import MIB

    held = sorted(held_now(pair).items())
    return " and ".join(f"{size_text(size * MIB)} of {names.get(device, device)}" for device, size in held if size)


def _tokens(context: int) -> str:
    return str(context) if context else "-"


def _print_model(model: Model, aliases: tuple[str, ...]) -> None:
    facts = model.facts
    click.secho(model.id, bold=True)
    for name, value in (
        ("model", summary(model)),
        ("architecture", facts.architecture),
        ("licence", licence_text(model.licence)),
        ("trained for", f"{facts.context_length} tokens" if facts.context_length else "unknown: the file does not say"),
        ("file", model.path if len(model.files) == 1 else f"{model.path} and {len(model.files) - 1} more"),
    ):
        click.echo(f"  {name:<13} {value}")
    if aliases:
        click.echo(f"  {'also called':<13} {', '.join(aliases)}")


def _print_now(model_id: str, machine: Machine, pairs: Mapping[str, Pair] | None) -> None:
    """Print the model's state, and where it lies, if that is known."""
    from mmd.control.state.residencies import active_of, status_word
    from mmd.plan.residency import Pair, residency

    if pairs is None:
        return
    pair = pairs.get(model_id, Pair())
    words = (status_word(model_id, residency(pair), active_of(pairs)), _holds_text(pair, _device_names(machine)))
    click.echo(f"  {'now':<13} {', with '.join(filter(None, words))}")


def _device_names(machine: Machine) -> dict[str, str]:
    from mmd.plan.share import device_ids

    return {device: f"GPU {gpu.index}" for device, gpu in device_ids(machine.gpus).items()} | {"ram": "RAM"}


def _place_texts(place: Preview, names: Mapping[str, str]) -> Iterator[str]:
    """Yield where the model would lie, and a line for each model that would be unloaded."""
    if place.refused:
        yield f"none: {place.refused}"
        return
    sizes = (f"{size_text(size)} of {names.get(device, device)}" for device, size in sorted(place.devices.items()))
    context = f", {place.context} tokens" if place.context else ""
    yield " and ".join(sizes) + context
    for other, why in sorted(place.unloads.items()):
        yield f"unloads {other}: {why}"


def _print_launch(launch: Launch, estimate: Estimate, rules: Rules, place: Iterable[str]) -> None:
    from mmd.cli.memory import needs_text, parts_text, suggestion_texts

    would_do = suggestion_texts(estimate)
    for name, value in (
        ("needs", needs_text(estimate)),
        ("", parts_text(estimate)),
        *((("better with" if not number else ""), text) for number, text in enumerate(would_do)),
        *((("place" if not number else ""), text) for number, text in enumerate(place)),
        ("engine", launch.title),
        ("unit", f"mmd-model@{launch.model_id}.service"),
        ("idle", _when_idle(launch, rules)),
    ):
        click.echo(f"  {name:<13} {value}")
    click.echo(f"\n{shlex.join(launch.argv)}\n")
    for flag in launch.flags:
        click.echo(f"  {_flag_name(flag):<{_FLAG_WIDTH}}  {flag.reason}")


def _when_idle(launch: Launch, rules: Rules) -> str:
    """Return what happens to the model when it is idle."""
    if rules.pinned:
        return "stays loaded: it is pinned"
    if rules.sleep_seconds == math.inf:
        stays = "stays loaded until its memory is needed for another model"
    else:
        stays = f"{'sleeps' if launch.sleep else 'stops'} after {rules.sleep_seconds:.0f} s"
    if launch.sleep is None or rules.stop_seconds == math.inf:
        return stays
    return f"{stays}; stops after {rules.stop_seconds:.0f} s asleep"


def _flag_name(flag: Flag) -> str:
    """Return a flag as it is in the command; if its value is long, such as a path, without it."""
    words = " ".join(flag.words)
    return words if words and len(words) <= _FLAG_WIDTH else flag.subject
