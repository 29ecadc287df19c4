"""A copy of the registry that is quick to read: a thousand models in 4 ms, where tomllib needs 60.

Derived, never the truth: valid only for the very file it was made from, and made anew wherever it is not.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from operator import attrgetter
from typing import Any

from mmd import paths
from mmd.registry.atomic import write_atomically
from mmd.registry.record import Facts, Format, Model, ModelType

# The fields are part of the stamp, so that a copy made by another version of mmd is never read.
_FACT_FIELDS = tuple(Facts.__dataclass_fields__)
_MODEL_FIELDS = tuple(Model.__dataclass_fields__)
_fact_values = attrgetter(*_FACT_FIELDS)


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
    ]


def read(wanted: list[Any]) -> dict[str, Model] | None:
    """The models, or None where there is no copy with this stamp that can be read."""
    try:
        content = json.loads((paths.cache_dir() / "models.json").read_bytes())
        if content["stamp"] != wanted:
            return None
        return {row[0]: _model(*row) for row in content["models"]}
    except (OSError, ValueError, TypeError, KeyError, LookupError):
        return None  # absent or damaged: it will be rewritten from models.toml


def write(made_from: list[Any], models: Mapping[str, Model]) -> None:
    content = {"stamp": made_from, "models": [_row(model) for model in models.values()]}
    try:
        write_atomically(paths.cache_dir() / "models.json", json.dumps(content).encode(), durable=False)
    except OSError:
        return  # a cache that cannot be written costs the next reader time, and nobody anything else


def _row(model: Model) -> list[Any]:
    return [
        model.id,
        model.path,
        model.files,
        model.projector,
        model.source,
        model.added,
        _fact_values(model.facts),
    ]


def _model(
    model_id: str,
    path: str,
    files: list[str],
    projector: str | None,
    source: str,
    added: str,
    facts: list[Any],
) -> Model:
    values = dict(zip(Facts.__dataclass_fields__, facts, strict=True))
    values |= {
        "format": Format(values["format"]),
        "type": ModelType(values["type"]),
        "template_marks": tuple(values["template_marks"]),
    }
    return Model(
        id=model_id,
        path=path,
        files=tuple(files),
        projector=projector,
        source=source,
        added=added,
        facts=Facts(**values),
    )
