"""Encode the frozen dataclasses as JSON, and decode them with every field checked.

msgspec is imported by the first call: it takes 20 ms, and `mmd --help` needs no record.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

T = TypeVar("T")

# msgspec says: Expected `int`, got `str` - at `$.gpus[0].index`
_WITH_KEY = r"(?s:(?P<problem>.*) - at `(?:key in )?\$\.?(?P<key>.*)`)"
_AT_BYTE = r"\(byte (\d+)\)"
_MISSING = "Object missing required field `(?P<field>.*)`"


class BadRecord(ValueError):
    """Content that is not the expected record. The message names the key: "gpus[0].index: expected int, got str"."""


def encode(record: object, *, indent: int = 0) -> bytes:
    """Return a record as JSON; with `indent` as lines with a line feed at the end."""
    import msgspec

    try:
        content = msgspec.json.encode(record)
    except (UnicodeEncodeError, OverflowError):  # an engine's line that is not UTF-8, a count of more than 64 bits
        content = json.dumps(msgspec.to_builtins(record), ensure_ascii=False).encode("utf-8", "replace")
    return msgspec.json.format(content, indent=indent) + b"\n" if indent else content


def decode(content: bytes, kind: type[T]) -> T:
    """Return the record in a JSON text. Keys that the record does not have are ignored: a newer version wrote them.

    Raise BadRecord if the content is not JSON, or if a key is missing or has a wrong value.
    """
    import msgspec

    try:
        return msgspec.json.decode(content, type=kind)
    except (ValueError, RecursionError) as error:
        raise _bad_record(error, content) from error


def convert(value: object, kind: type[T]) -> T:
    """Return the record in parsed JSON or TOML. Raise BadRecord like `decode`."""
    import msgspec

    try:
        return msgspec.convert(value, kind)
    except (ValueError, RecursionError) as error:
        raise _bad_record(error) from error


def to_builtins(record: object) -> Any:
    """Return a record as the dicts, lists, numbers and strings of its JSON."""
    return json.loads(encode(record))


def json_schemas(kinds: Iterable[type], names: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Return the JSON schemas of these records and those in them, by class name; references use `names`."""
    import msgspec

    _, found = msgspec.json.schema_components(kinds, ref_template="#/components/schemas/{name}")
    text = json.dumps(found)
    for class_name, name in names.items():
        text = text.replace(f'"#/components/schemas/{class_name}"', f'"#/components/schemas/{name}"')
    schemas: dict[str, dict[str, Any]] = json.loads(text)
    return schemas


def require_counts(record: object, *names: str) -> None:
    """Raise ValueError if one of these fields is negative. For `__post_init__`, which `decode` calls too."""
    for name in names:
        if getattr(record, name) < 0:
            raise ValueError(f"`{name}` is negative")


def _bad_record(error: Exception, content: bytes = b"") -> BadRecord:
    if isinstance(error, RecursionError):
        return BadRecord("it is nested too deeply")
    found = re.fullmatch(_WITH_KEY, str(error))
    problem, key = (found["problem"], found["key"]) if found else (str(error), "")
    if missing := re.fullmatch(_MISSING, problem):
        return BadRecord(f"{key}{'.' if key else ''}{missing['field']} is missing")
    problem = problem.replace("`", "").replace("Expected", "expected").replace("Invalid", "invalid")
    problem = re.sub(_AT_BYTE, lambda at: f"(line {_line_of(content, int(at[1]))})", problem)
    return BadRecord(f"{key}: {problem}" if key else problem)


def _line_of(content: bytes, offset: int) -> int:
    return content.count(b"\n", 0, offset) + 1
