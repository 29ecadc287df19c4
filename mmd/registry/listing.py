"""A copy of the registry that is quick to read: a thousand models in 8 ms, where tomllib needs 200.

Derived, never the truth: valid only for the very file it was made from, and made anew wherever it is not.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from operator import attrgetter
from typing import Any

from mmd import paths
from mmd.atomic import write_atomically
from mmd.registry.layout import Anatomy, Layers
from mmd.registry.record import Facts, Format, Model, ModelType

# The fields are part of the stamp, so that a copy made by another version of mmd is never read.
_FACT_FIELDS = tuple(Facts.__dataclass_fields__)
_MODEL_FIELDS = tuple(Model.__dataclass_fields__)
_fact_values = attrgetter(*_FACT_FIELDS)
_FORMAT, _TYPE, _MARKS, _ANATOMY = (
    _FACT_FIELDS.index(name) for name in ("format", "type", "template_marks", "anatomy")
)
_ANATOMY_FIELDS = tuple(Anatomy.__dataclass_fields__)
_LAYERS_FIELDS = tuple(Layers.__dataclass_fields__)
_anatomy_values = attrgetter(*_ANATOMY_FIELDS)
_layers_values = attrgetter(*_LAYERS_FIELDS)
_EXPERTS, _CACHES = (_ANATOMY_FIELDS.index(name) for name in ("expert_bytes", "caches"))
_model_values = attrgetter(*_MODEL_FIELDS)
# By dict: to call an enum with a value takes five times as long.
_FORMATS = {str(one): one for one in Format}
_TYPES = {str(one): one for one in ModelType}


def stamp(status: os.stat_result) -> list[Any]:
    """What changes when the registry does."""
    return [
        status.st_dev,
        status.st_ino,
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
        *_MODEL_FIELDS,
        *_FACT_FIELDS,
        *_ANATOMY_FIELDS,
        *_LAYERS_FIELDS,
    ]


def read(wanted: list[Any]) -> dict[str, Model] | None:
    """The models, or None where there is no copy with this stamp that can be read."""
    try:
        content = json.loads((paths.cache_dir() / "models.json").read_bytes())
        if content["stamp"] != wanted:
            return None
        return {row[0]: _model(row) for row in content["models"]}
    except (OSError, ValueError, TypeError, KeyError, LookupError):
        return None  # absent or damaged: it will be rewritten from models.toml


def write(made_from: list[Any], models: Mapping[str, Model]) -> None:
    content = {"stamp": made_from, "models": [_row(model) for model in models.values()]}
    try:
        write_atomically(paths.cache_dir() / "models.json", json.dumps(content).encode(), durable=False)
    except OSError:
        return  # a cache that cannot be written costs the next reader time, and nobody anything else


def _row(model: Model) -> list[Any]:
    """The fields of a model in their order; its facts likewise, in place of the last."""
    facts = list(_fact_values(model.facts))
    if model.facts.anatomy is not None:
        facts[_ANATOMY] = values = list(_anatomy_values(model.facts.anatomy))
        values[_CACHES] = [_layers_values(layers) for layers in model.facts.anatomy.caches]
    return [*_model_values(model)[:-1], facts]


def _model(row: list[Any]) -> Model:
    model_id, path, files, projector, source, added, licence, facts = row
    return Model(model_id, path, tuple(files), projector, source, added, licence, _facts(facts))


def _facts(values: list[Any]) -> Facts:
    values[_FORMAT] = _FORMATS[values[_FORMAT]]
    values[_TYPE] = _TYPES[values[_TYPE]]
    values[_MARKS] = tuple(values[_MARKS])
    if values[_ANATOMY] is not None:
        values[_ANATOMY] = _anatomy(values[_ANATOMY])
    return Facts(*values)


def _anatomy(values: list[Any]) -> Anatomy:
    values[_EXPERTS] = tuple((layers, size_bytes) for layers, size_bytes in values[_EXPERTS])
    values[_CACHES] = tuple(Layers(*row) for row in values[_CACHES])
    return Anatomy(*values)
