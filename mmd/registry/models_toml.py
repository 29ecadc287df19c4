"""The registry's text: models to TOML and back. What does not fit is an error that names the key."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import MISSING, asdict, fields
from typing import Any, TypeVar

from mmd.registry.layout import Anatomy, Layers
from mmd.registry.record import Facts, Format, Model, ModelType

_HEADER = """\
# The models that mmd knows, written by `mmd add` and `mmd remove`. Change it with those: mmd
# rewrites the whole file, and comments do not survive. Your own settings go into mmd.toml.

"""

_MODEL_KEYS = frozenset({"path", "files", "projector", "source", "added", "licence", "facts"})
_FACT_KEYS = frozenset(Facts.__dataclass_fields__)

T = TypeVar("T")


class UnknownText(ValueError):
    """The text cannot be understood; the message says where and why."""


def render(models: Iterable[Model]) -> bytes:
    import tomli_w

    tables = {model.id: _model_table(model) for model in models}
    return (_HEADER + tomli_w.dumps({"models": tables})).encode()


def _model_table(model: Model) -> dict[str, Any]:
    facts = {key: getattr(model.facts, key) for key in Facts.__dataclass_fields__}
    anatomy = facts.pop("anatomy")
    return {
        "path": model.path,
        "files": list(model.files),
        **({"projector": model.projector} if model.projector else {}),
        "source": model.source,
        "added": model.added,
        **({"licence": model.licence} if model.licence else {}),
        "facts": facts
        | {
            "format": facts["format"].value,
            "type": facts["type"].value,
            "template_marks": list(facts["template_marks"]),
        }
        | ({"anatomy": _anatomy_table(anatomy)} if anatomy else {}),
    }


def _anatomy_table(anatomy: Anatomy) -> dict[str, Any]:
    """Only what differs from the defaults of Layers: most have a count and two widths."""
    table = asdict(anatomy)
    caches = [
        {key: value for key, value in cache.items() if value != Layers.__dataclass_fields__[key].default}
        for cache in table["caches"]
    ]
    return table | {"caches": caches}


def parse(content: bytes) -> dict[str, Model]:
    """Raises UnknownText with the line of a syntax error, or the key that is missing, unknown or wrong."""
    import tomllib

    try:
        document = tomllib.loads(content.decode())
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UnknownText(f"line {line} is not UTF-8") from error
    except tomllib.TOMLDecodeError as error:
        raise UnknownText(str(error)) from error
    _refuse_unknown(document, {"models"}, "the file")
    models = document.get("models", {})
    if not isinstance(models, dict):
        raise UnknownText("`models` is not a table")
    return {model_id: _model(model_id, table) for model_id, table in models.items()}


def _model(model_id: str, table: object) -> Model:
    where = f"[models.{model_id}]"
    if not isinstance(table, dict):
        raise UnknownText(f"{where} is not a table")
    _refuse_unknown(table, _MODEL_KEYS, where)
    return Model(
        id=model_id,
        path=_value(table, "path", str, where),
        files=_texts(table, "files", where),
        projector=_value(table, "projector", str, where) if "projector" in table else None,
        source=_value(table, "source", str, where),
        added=_value(table, "added", str, where),
        licence=_value(table, "licence", str, where) if "licence" in table else "",
        facts=_facts(_value(table, "facts", dict, where), f"[models.{model_id}.facts]"),
    )


def _facts(table: Mapping[str, Any], where: str) -> Facts:
    _refuse_unknown(table, _FACT_KEYS, where)
    return Facts(
        format=Format(_word(table, "format", Format, where)),
        type=ModelType(_word(table, "type", ModelType, where)),
        architecture=_value(table, "architecture", str, where),
        quant=_value(table, "quant", str, where),
        weights_bytes=_value(table, "weights_bytes", int, where),
        parameters=_value(table, "parameters", int, where),
        context_length=_value(table, "context_length", int, where),
        kv_bytes_per_token=_value(table, "kv_bytes_per_token", int, where),
        chat_template=_value(table, "chat_template", bool, where),
        name=_value(table, "name", str, where),
        template_marks=_texts(table, "template_marks", where) if "template_marks" in table else (),
        attention_heads=_value(table, "attention_heads", int, where) if "attention_heads" in table else 0,
        anatomy=_anatomy(_value(table, "anatomy", dict, where), f"{where[:-1]}.anatomy]")
        if "anatomy" in table
        else None,
    )


def _anatomy(table: Mapping[str, Any], where: str) -> Anatomy:
    _refuse_unknown(table, Anatomy.__dataclass_fields__, where)
    numbers = {
        field.name: _value(table, field.name, int, where)
        for field in fields(Anatomy)
        if field.name not in ("expert_bytes", "caches")
    }
    experts = tuple(_pair(pair, "expert_bytes", where) for pair in _value(table, "expert_bytes", list, where))
    caches = tuple(_layers(cache, where) for cache in _value(table, "caches", list, where))
    return Anatomy(expert_bytes=experts, caches=caches, **numbers)


def _pair(value: object, key: str, where: str) -> tuple[int, int]:
    match value:
        case [int(first), int(second)]:
            return first, second
        case _:
            raise UnknownText(f"`{key}` in {where} is not a list of pairs of numbers")


def _layers(value: object, where: str) -> Layers:
    if not isinstance(value, dict):
        raise UnknownText(f"`caches` in {where} is not a list of tables")
    _refuse_unknown(value, Layers.__dataclass_fields__, f"`caches` in {where}")
    given = {
        field.name: _value(value, field.name, type(field.default) if field.default is not MISSING else int, where)
        for field in fields(Layers)
        if field.name in value or field.default is MISSING
    }
    return Layers(**given)


def _value(table: Mapping[str, Any], key: str, kind: type[T], where: str) -> T:
    if key not in table:
        raise UnknownText(f"`{key}` is missing in {where}")
    value = table[key]
    # A bool is an int to Python, and not one to a reader of the file.
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise UnknownText(f"`{key}` in {where} is not of the type {kind.__name__}")
    return value


def _texts(table: Mapping[str, Any], key: str, where: str) -> tuple[str, ...]:
    values = _value(table, key, list, where)
    if not all(isinstance(value, str) for value in values):
        raise UnknownText(f"`{key}` in {where} is not a list of strings")
    return tuple(values)


def _word(table: Mapping[str, Any], key: str, words: type[Format] | type[ModelType], where: str) -> str:
    word = _value(table, key, str, where)
    if word not in set(words):
        raise UnknownText(f"`{key}` in {where} is {word!r}, none of: {', '.join(words)}")
    return word


def _refuse_unknown(table: Mapping[str, Any], known: Iterable[str], where: str) -> None:
    unknown = sorted(set(table) - set(known))
    if unknown:
        raise UnknownText(f"`{unknown[0]}` in {where} is not known to this version of mmd")
