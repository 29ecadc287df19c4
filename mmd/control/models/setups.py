"""Setups: named sets of models that are resident together, stored in mmd.toml only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from mmd.control.models.aliases import NameTable, id_for, names_of
from mmd.errors import MmdError, NoSuchModel, WrongUsage
from mmd.paths import config_file
from mmd.plan.boot import Startup
from mmd.registry.record import Model
from mmd.registry.store import Registry, no_such_model
from mmd.setting_values import is_setup_name
from mmd.settings import Settings, SetupTable, read_settings


@dataclass(frozen=True, slots=True)
class Setup:
    """A named set of models that are resident together. Its models are registered."""

    name: str
    models: tuple[str, ...]  # ids, in the order of mmd.toml
    note: str = ""
    expose: tuple[str, ...] = ()  # those of its models that are exposed while it is up
    startup: Startup = Startup.DISABLED


@dataclass(frozen=True, slots=True)
class Selected:
    """What a command acts on: a model, or a setup and so its models."""

    name: str
    models: tuple[str, ...]
    setup: Setup | None = None


def setup_named(
    name: str, models: Mapping[str, Model], settings: Settings, names: NameTable | None = None
) -> Setup | None:
    """Return the setup of this name, or None. `names` are the models' names, if they are read already.

    Raises WrongUsage if a model has this id or if the setup names one model twice; NoSuchModel, with the nearest id, if
    one of its models is not registered.
    """
    table = settings.setups.get(name)
    return None if table is None else _resolved(name, table, models, names or names_of(models, settings))


def as_written(name: str, table: SetupTable) -> Setup:
    """Return a setup with its models as mmd.toml names them, whether or not they exist."""
    return Setup(name, table.models, table.note, table.expose, Startup(table.startup))


def require_setup(name: str) -> Setup:
    """Return the setup of this name. Raises NoSuchModel, and what `setup_named` raises."""
    settings = read_settings()
    setup = setup_named(name, Registry().load(), settings)
    if setup is None:
        raise no_such_setup(name, settings)
    return setup


def select(name: str) -> Selected:
    """Return the setup or the model of this name. An unknown name is returned as a model's id; the caller reports it.

    Raises what `setup_named` and `id_for` raise.
    """
    try:
        models = Registry().load()
    except MmdError:
        return Selected(name, (name,))  # a unit can be stopped even if the registry is damaged,
    try:
        settings = read_settings()
    except MmdError:
        if name not in models:
            raise
        return Selected(name, (name,))  # or mmd.toml
    setup = setup_named(name, models, settings)
    if setup is not None:
        return Selected(name, setup.models, setup)
    model_id = id_for(name)
    return Selected(model_id, (model_id,))


def no_such_setup(name: str, settings: Settings) -> NoSuchModel:
    from difflib import get_close_matches

    if nearest := get_close_matches(name.lower(), settings.setups, n=1, cutoff=0.5):
        message = f"no setup is called {name!r}; did you mean {nearest[0]!r}?"
        return NoSuchModel(message, hint=f"mmd setup show {nearest[0]}   # the nearest name")
    if settings.setups:
        return NoSuchModel(f"no setup is called {name!r}", hint="mmd setup list   # shows the setups")
    return NoSuchModel(f"no setup is called {name!r}: there is none yet", hint=f"mmd setup add {name} ID ID")


def define(name: str, model_ids: Sequence[str], note: str | None) -> bool:
    """Define a setup in mmd.toml, or replace the models of one, and its note if given. Return True if it is new.

    Raises WrongUsage for an invalid name and for a model named twice, NoSuchModel, and what `edit_settings` raises.
    """
    from mmd.settings_edit import Key, Value, edit_settings

    models, settings = Registry().load(), read_settings()
    again = f"mmd setup add NAME {' '.join(model_ids)}"
    if not is_setup_name(name):
        message = f"{name!r} is not a setup's name: use lower-case letters, digits and . _ -, at most 64"
        raise WrongUsage(message, hint=again)
    if (model_id := names_of(models, settings).ids.get(name)) is not None:
        what = "a model" if model_id == name else f"another name of {model_id}"
        raise WrongUsage(f"{name} is {what}, so no setup can have this name", hint=again)
    before = settings.setups.get(name, SetupTable(models=()))
    _resolved(name, replace(before, models=tuple(model_ids), expose=()), models, names_of(models, settings))
    values: dict[Key, Value] = {("setups", name, "models"): tuple(model_ids)}
    if before.expose:
        values["setups", name, "expose"] = tuple(one for one in before.expose if one in model_ids)
    if note is not None:
        values["setups", name, "note"] = note
    edit_settings(values)
    return name not in settings.setups


def refuse_name_of_setup(model_id: str) -> None:
    """Raise WrongUsage if a setup has the id of a new model. If mmd.toml is damaged, any id is accepted."""
    try:
        setups = read_settings().setups
    except MmdError:
        return
    if model_id in setups:
        message = f"a setup is called {model_id}, so no model can have this id"
        raise WrongUsage(message, hint="mmd setup list   # choose an id that is not among these names")


def forget(name: str) -> None:
    """Remove a setup from mmd.toml. Raises NoSuchModel, and what `remove_setup` raises."""
    from mmd.settings_edit import remove_setup

    settings = read_settings()
    if name not in settings.setups:
        raise no_such_setup(name, settings)
    remove_setup(name)


def answering_model(setup: Setup, models: Mapping[str, Model]) -> str:
    """Return the model that answers a request for the setup: the only one of its models that generates text.

    Raises NoSuchModel if none or several of its models do.
    """
    generating = [one for one in setup.models if models[one].facts.type.generates]
    if len(generating) == 1:
        return generating[0]
    count = "several of which generate" if generating else "none of which generates"
    raise NoSuchModel(
        f"{setup.name} is a setup, {count} text; name one of its models: {', '.join(setup.models)}",
        hint=f"mmd setup show {setup.name}",
    )


def _resolved(name: str, table: SetupTable, models: Mapping[str, Model], names: NameTable) -> Setup:
    if name in models:
        message = f"{name} is both a model and a setup in mmd.toml"
        raise WrongUsage(message, hint=f"${{EDITOR:-nano}} {config_file()}   # rename [setups.{_key(name)}]")
    ids = tuple(_member(name, one, models, names) for one in table.models)
    if len(set(ids)) < len(ids):
        twice = next(model_id for model_id in ids if ids.count(model_id) > 1)
        message = f"the setup {name} names {twice} twice: {', '.join(table.models)}"
        raise WrongUsage(message, hint=f"mmd setup add {name} {' '.join(dict.fromkeys(ids))}")
    return Setup(name, ids, table.note, tuple(names.ids[one] for one in table.expose), Startup(table.startup))


def _member(setup: str, name: str, models: Mapping[str, Model], names: NameTable) -> str:
    names.require_clear(name)
    if (model_id := names.ids.get(name)) is None:
        message = f"the setup {setup} names a model that is not registered: {no_such_model(name, models).message}"
        raise NoSuchModel(message, hint=f"mmd setup add {setup} ID ID   # replaces its models")
    return model_id


def _key(name: str) -> str:
    return f'"{name}"' if "." in name else name
