"""Models as TOML: the record in an archive, and the registry as mmd 0.1 wrote it."""

from __future__ import annotations

import tomllib
from typing import Any

from mmd.codec import BadRecord, convert, to_builtins
from mmd.registry.record import Model

_LAYOUT_KEY = "anatomy"  # the key of `Facts.layout` in these files


def render(model: Model) -> bytes:
    """Return the text of a record with one model."""
    import tomlkit

    table = _without_none(to_builtins(model))
    _rename(table, "layout", _LAYOUT_KEY)
    return tomlkit.dumps({"models": {table.pop("id"): table}}).encode()


def parse(content: bytes) -> dict[str, Model]:
    """Return the models by id. Raise BadRecord, which names the line of a syntax error or the key."""
    try:
        document = tomllib.loads(content.decode())
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise BadRecord(f"line {line} is not UTF-8") from error
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise BadRecord(str(error)) from error
    tables = convert(document.get("models", {}), dict[str, dict[str, Any]])
    return {model_id: _model(model_id, table) for model_id, table in tables.items()}


def _model(model_id: str, table: dict[str, Any]) -> Model:
    _rename(table, _LAYOUT_KEY, "layout")
    try:
        return convert({"projector": None, "licence": ""} | table | {"id": model_id}, Model)
    except BadRecord as error:
        raise BadRecord(f"[models.{model_id}] {error}") from error


def _rename(table: dict[str, Any], old: str, new: str) -> None:
    facts = table.get("facts")
    if isinstance(facts, dict) and old in facts:
        facts[new] = facts.pop(old)


def _without_none(value: Any) -> Any:
    """Drop None, for which TOML has no value."""
    if isinstance(value, dict):
        return {key: _without_none(inner) for key, inner in value.items() if inner is not None}
    return [_without_none(inner) for inner in value] if isinstance(value, list) else value
