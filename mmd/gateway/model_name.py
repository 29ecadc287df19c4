"""The `model` a request names, found without parsing the conversation around it.

A JSON parser builds every message of a long prompt to read one key at its side. Here the key is searched for, and
only what decides whether it is the top-level one is looked at. For valid JSON the result is exactly that of
`json.loads(body)["model"]`, the last of several included; what invalid JSON yields does not matter, because the
engine refuses it.
"""

from __future__ import annotations

import json
import re
from urllib.parse import parse_qs

from mmd.errors import WrongUsage

_KEY = re.compile(rb'(?<!\\)"model"[ \t\r\n]*:')  # in valid JSON this is a key; within a string its quotes are escaped
_ESCAPED_LETTER = re.compile(rb"\\u006[45cdfCDF]")  # one of "model", written so that _KEY could miss it
# Possessive, and with the closing quote optional: a string that never ends is read once, not once for each quote.
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)
_STRING_OR_BRACKET = re.compile(rb'("[^"\\]*+(?:\\.[^"\\]*+)*+"?)([ \t\r\n]*:)?|[{}\[\]]', re.DOTALL)
_VALUE = re.compile(rb'[ \t\r\n]*(?:("[^"\\]*+(?:\\.[^"\\]*+)*+")|null\b)', re.DOTALL)
_BOUNDARY = re.compile(rb'(?i)\bboundary=(?:"([^"]+)"|([^\s;,"]+))')
_MODEL_FIELD = re.compile(rb"(?i)\r\ncontent-disposition:[^\r\n]*;[ \t]*name=(?:\"model\"|model(?=[;\r]))")

# Each candidate costs a look at up to half the body, so a body made of them is read once from its start instead.
_MOST_CANDIDATES = 8


def named_model(content_type: bytes, body: bytes) -> str | None:
    """The model's name in a request's body, None where it names none; WrongUsage where it is not a name."""
    if content_type[:20].lower().startswith(b"multipart/form-data"):
        return _model_in_form(content_type, body)
    return model_in_json(body)


def model_in_query(target: bytes) -> str | None:
    """As `?model=NAME` says: requests that have no body can name a model, too."""
    query = target.partition(b"?")[2]
    if b"model=" not in query:
        return None
    return parse_qs(query.decode("latin-1")).get("model", [None])[-1]


def model_in_json(body: bytes) -> str | None:
    ends = _few_key_ends(body)
    if ends is None:
        end = _last_key_end(body)
    else:
        end = next((end for start, end in reversed(ends) if _depth(body, start) == 1), None)
    return None if end is None else _value(body, end)


def _few_key_ends(body: bytes) -> list[tuple[int, int]] | None:
    """Where keys "model" begin and end, at any depth; None where there are too many, or they may be spelt otherwise."""
    if b"\\u006" in body and _ESCAPED_LETTER.search(body):
        return None
    ends: list[tuple[int, int]] = []
    position = body.find(b'"model"')  # the search for a plain string is many times faster than that for a pattern
    while position >= 0:
        if key := _KEY.match(body, position):
            ends.append(key.span())
        if len(ends) > _MOST_CANDIDATES:
            return None
        position = body.find(b'"model"', position + 7)
    return ends


def _depth(body: bytes, position: int) -> int:
    """How many brackets are open at a place outside strings, counted from the nearer end."""
    if position <= len(body) // 2:
        return _opened(body[:position])
    return -_opened(body[position:])


def _opened(part: bytes) -> int:
    brackets = _STRING.sub(b"", part)
    opening = brackets.count(b"{") + brackets.count(b"[")
    return opening - brackets.count(b"}") - brackets.count(b"]")


def _last_key_end(body: bytes) -> int | None:
    depth, end = 0, None
    for token in _STRING_OR_BRACKET.finditer(body):
        string, colon = token.groups()
        if string is None:
            depth += 1 if token.group() in b"{[" else -1
        elif colon is not None and depth == 1 and _text(string) == "model":
            end = token.end()
    return end


def _value(body: bytes, position: int) -> str | None:
    found = _VALUE.match(body, position)
    if found is None:
        raise WrongUsage("the request's model is not a string", hint="mmd list   # see the names")
    return None if found[1] is None else _text(found[1])


def _text(string: bytes) -> str:
    try:
        return str(json.loads(string))
    except ValueError as error:
        raise WrongUsage(f"the request's body is not JSON: {error}", hint="mmd list   # see the names") from error


def _model_in_form(content_type: bytes, body: bytes) -> str | None:
    boundary = _BOUNDARY.search(content_type)
    if boundary is None:
        raise WrongUsage("multipart/form-data without a boundary", hint="curl -F model=ID -F file=@FILE …")
    delimiter = b"\r\n--" + (boundary[1] or boundary[2])
    name = None
    first = body.find(delimiter[2:])  # with no line before it
    if first < 0:
        return None
    start = first + len(delimiter) - 2
    while (end := body.find(delimiter, start)) >= 0:
        head_end = body.find(b"\r\n\r\n", start, end)
        if head_end >= 0 and _MODEL_FIELD.search(body, start, head_end + 2):
            name = body[head_end + 4 : end].decode("utf-8", "replace")
        start = end + len(delimiter)
    return name
