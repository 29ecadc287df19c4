"""Other names of models: aliases in mmd.toml, and the repository a model comes from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from mmd.errors import MmdError, NoSuchModel
from mmd.paths import config_file
from mmd.registry.record import Model
from mmd.registry.store import Registry
from mmd.settings import Settings, read_settings

_HUB = "hf:"
_CACHE_PREFIX = "models--"


@dataclass(frozen=True, slots=True)
class NameTable:
    """The names that clients may use for registered models."""

    ids: Mapping[str, str]  # each unambiguous name -> model id
    aliases: Mapping[str, tuple[str, ...]]  # model id -> its other names
    ambiguous: Mapping[str, tuple[str, ...]]  # repository of several models -> their ids
    shadowed: Mapping[str, str]  # alias that equals another model's id (which wins) -> the model with the alias

    def require_clear(self, name: str) -> None:
        """Raises NoSuchModel if a name stands for several models."""
        if several := self.ambiguous.get(name):
            raise NoSuchModel(
                f"{name} is ambiguous, several models come from it: {', '.join(several)}",
                hint=f"${{EDITOR:-nano}} {config_file()}   # or add the name to the aliases of one of them",
            )

    def warnings(self) -> tuple[str, ...]:
        return tuple(
            f"mmd.toml: the alias {alias} of {model_id} has no effect, because another model has the id {alias}"
            for alias, model_id in self.shadowed.items()
        )


def names_of(models: Mapping[str, Model], settings: Settings) -> NameTable:
    """Collect all names. An id takes precedence over an alias, an alias over a repository name."""
    configured = {model_id: settings.model(model_id).aliases for model_id in models}
    shadowed = {
        alias: model_id
        for model_id, aliases in configured.items()
        for alias in aliases
        if alias in models and alias != model_id
    }
    ids = {alias: model_id for model_id, aliases in configured.items() for alias in aliases if alias not in models}
    ids |= {model_id: model_id for model_id in models}
    of_repositories, ambiguous = _by_repository(models.values(), taken=ids)
    ids |= of_repositories
    aliases: dict[str, tuple[str, ...]] = dict.fromkeys(models, ())
    for name, model_id in ids.items():
        if name != model_id:
            aliases[model_id] += (name,)
    return NameTable(ids, aliases, ambiguous, shadowed)


def candidate_aliases(model: Model, settings: Settings) -> tuple[str, ...]:
    """Return the other names of one model, ignoring conflicts with other models."""
    return names_of({model.id: model}, settings).aliases[model.id]


def id_for(name: str) -> str:
    """Return the id of the named model; an unknown name is returned as it is, and the caller reports it.

    Raises NoSuchModel if the name is ambiguous or that of a setup, and WrongUsage if it may be an alias and mmd.toml is
    damaged.
    """
    try:
        models = Registry().load()
    except MmdError:
        return name  # a unit can be stopped even if the registry is damaged
    if name in models:
        return name
    settings = read_settings()
    names = names_of(models, settings)
    names.require_clear(name)
    if name in settings.setups:
        members = ", ".join(settings.setups[name].models)
        raise NoSuchModel(f"{name} is a setup, not a model; its models: {members}", hint=f"mmd setup show {name}")
    return names.ids.get(name, name)


def repository_of(model: Model) -> str | None:
    """Return ORG/NAME on the Hugging Face hub, from the model's source or its cache folder; None for other models."""
    if model.source.startswith(_HUB):
        return model.source.removeprefix(_HUB).partition("@")[0]
    for part in model.path.split("/"):
        if part.startswith(_CACHE_PREFIX):
            return part.removeprefix(_CACHE_PREFIX).replace("--", "/", 1)
    return None


def _by_repository(
    models: Iterable[Model], *, taken: Collection[str]
) -> tuple[dict[str, str], dict[str, tuple[str, ...]]]:
    """Return repository -> id for repositories with one model, and repository -> ids for those with several."""
    found = [(name, model.id) for model in models if (name := repository_of(model)) and name not in taken]
    count = Counter(name for name, _ in found)
    several: dict[str, tuple[str, ...]] = {name: () for name, _ in found if count[name] > 1}
    for name, model_id in found:
        if name in several:
            several[name] += (model_id,)
    return {name: model_id for name, model_id in found if name not in several}, several
