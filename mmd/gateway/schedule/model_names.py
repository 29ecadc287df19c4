"""The registered models and the names that clients may use for them, read again when the files change."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping

from mmd.control.models.aliases import names_of
from mmd.control.models.setups import Setup, answering_model, setup_named
from mmd.errors import NoSuchModel, WrongUsage
from mmd.files import ReloadOnChange
from mmd.paths import config_file
from mmd.plan.residency import Pair, Residency, residency
from mmd.registry.record import Model, ModelType
from mmd.registry.store import Registry
from mmd.settings import Settings, read_settings
from mmd.units.watch import Pairs

_log = logging.getLogger(__name__)


class ModelNames:
    """The registry and mmd.toml, read again when one of them changes: a request costs two stat()."""

    def __init__(self, registry: Registry, settings: Settings) -> None:
        self._registry = registry
        self._settings = settings
        self._settings_file = ReloadOnChange(config_file(), read_settings, initial=settings, keeps="the aliases")
        self._models: Mapping[str, Model] | None = None
        self._names = names_of({}, settings)

    @property
    def models(self) -> Mapping[str, Model]:
        self._refresh()
        assert self._models is not None
        return self._models

    @property
    def settings(self) -> Settings:
        self._refresh()
        return self._settings

    @property
    def aliases(self) -> Mapping[str, tuple[str, ...]]:
        """Return the other names of each model."""
        self._refresh()
        return self._names.aliases

    def find(self, name: str) -> str:
        """Return the id of the model with this name, or of the model that answers for the setup with this name.

        Raises NoSuchModel, also for a setup without one such model.
        """
        self._refresh()
        model_id = self._names.ids.get(name)
        if model_id is None and (setup := self._setup_to_ask(name)) is not None:
            return answering_model(setup, self.models)
        if model_id is None:
            self._names.require_clear(name)
            model_id = self._registry.get(name).id  # raises NoSuchModel and names the nearest id
        return model_id

    def setup(self, name: str) -> Setup | None:
        """Return the setup with this name, None if there is none. Raises what `setup_named` raises."""
        return setup_named(name, self.models, self.settings, self._names)

    def _setup_to_ask(self, name: str) -> Setup | None:
        try:
            return self.setup(name)
        except WrongUsage as error:  # clients know 404 for a name that cannot be asked
            raise NoSuchModel(error.message, hint=error.hint) from error

    def _refresh(self) -> None:
        # Both return the same object until their file changes.
        models, settings = self._registry.load(), self._settings_file.current()
        if models is self._models and settings is self._settings:
            return
        self._models, self._settings = models, settings
        self._names = names_of(models, settings)
        for warning in self._names.warnings():
            _log.warning("%s", warning)


def embedding_model(models: Iterable[Model], pairs: Pairs) -> str:
    """Return the embedding model for a request without a name: the resident one, else the first by id. Raises
    NoSuchModel.
    """
    ids = sorted(model.id for model in models if model.facts.type is ModelType.EMBEDDING)
    if not ids:
        message = "the request names no model, and no embedding model is registered"
        raise NoSuchModel(message, hint="mmd add PATH   # an embedding model; or name a model: mmd list")
    resident = (name for name in ids if residency(pairs.get(name, Pair())) is Residency.RESIDENT)
    return next(resident, ids[0])
