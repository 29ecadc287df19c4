"""The other names that models answer to: those laid down in mmd.toml, and the repository that a model comes from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePath

from mmd.errors import MmdError, NoSuchModel
from mmd.paths import config_file
from mmd.registry.record import Model
from mmd.registry.store import Registry
from mmd.settings import Settings, read_settings

_HUB = "hf:"
_CACHE_PREFIX = "models--"


@dataclass(frozen=True, slots=True)
class ModelNames:
    """What clients may call the registered models."""

    ids: Mapping[str, str]  # every name that means one model -> its id
    aliases: Mapping[str, tuple[str, ...]]  # id -> its other names
    ambiguous: Mapping[str, tuple[str, ...]]  # name of a repository that several models come from -> their ids
    shadowed: Mapping[str, str]  # alias that is another model's id, and means that -> who has the alias

    def require_clear(self, name: str) -> None:
        """Raises NoSuchModel where a name means several models."""
        if several := self.ambiguous.get(name):
            raise NoSuchModel(
                f"{name} is where {' and '.join(several)} come from: name one of them",
                hint=f"${{EDITOR:-nano}} {config_file()}   # or give one of them the name, among its aliases",
            )

    def warnings(self) -> tuple[str, ...]:
        return tuple(
            f"mmd.toml has {alias} as an alias of {model_id}, and it is the id of another model: it means {alias}"
            for alias, model_id in self.shadowed.items()
        )


def names_of(models: Mapping[str, Model], settings: Settings) -> ModelNames:
    """An id goes before an alias, and an alias before a repository's name."""
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
    return ModelNames(ids, aliases, ambiguous, shadowed)


def candidate_aliases(model: Model, settings: Settings) -> tuple[str, ...]:
    """What one model could be called, whoever else could be."""
    return names_of({model.id: model}, settings).aliases[model.id]


def id_for(name: str) -> str:
    """The id of the model that is meant, or the name itself where none is: what is done with it says so.

    Raises NoSuchModel where it means several, and WrongUsage where it could be an alias and mmd.toml is damaged.
    """
    try:
        models = Registry().load()
    except MmdError:
        return name  # a unit can be stopped without a registry
    if name in models:
        return name
    names = names_of(models, read_settings())
    names.require_clear(name)
    return names.ids.get(name, name)


def repository_of(model: Model) -> str | None:
    """ORG/NAME on the Hugging Face hub, as its source says or the cache folder that it lies in."""
    if model.source.startswith(_HUB):
        return model.source.removeprefix(_HUB).partition("@")[0]
    for part in PurePath(model.path).parts:
        if part.startswith(_CACHE_PREFIX):
            return part.removeprefix(_CACHE_PREFIX).replace("--", "/", 1)
    return None


def _by_repository(
    models: Iterable[Model], *, taken: Collection[str]
) -> tuple[dict[str, str], dict[str, tuple[str, ...]]]:
    """Names of repositories with one model, and of those with several."""
    found = [(name, model.id) for model in models if (name := repository_of(model)) and name not in taken]
    count = Counter(name for name, _ in found)
    several: dict[str, tuple[str, ...]] = {name: () for name, _ in found if count[name] > 1}
    for name, model_id in found:
        if name in several:
            several[name] += (model_id,)
    return {name: model_id for name, model_id in found if name not in several}, several
