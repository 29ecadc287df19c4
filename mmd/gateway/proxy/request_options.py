"""The options of a request that the gateway reads: its model, and how long that model stays loaded afterwards."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from urllib.parse import parse_qs

from mmd.errors import WrongUsage
from mmd.gateway.http.request import Request
from mmd.gateway.proxy.json_keys import TopLevelKeys, json_string

_KEYS = TopLevelKeys("model", "keep_alive", "ttl")

# Go's durations ("1h30m"), which Ollama's clients send.
_DURATION = re.compile(r"[+-]?(?:(?:\d+\.?\d*|\.\d+)(?:ns|us|µs|μs|ms|s|m|h))+", re.ASCII)
_PART = re.compile(r"(\d+\.?\d*|\.\d+)([a-zµμ]+)", re.ASCII)
_UNIT_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_NUMBER = re.compile(r"[+-]?\d+(?:\.\d+)?", re.ASCII)

_BOUNDARY = re.compile(rb'(?i)\bboundary=(?:"([^"]+)"|([^\s;,"]+))')
_MODEL_FIELD = re.compile(rb"(?i)\r\ncontent-disposition:[^\r\n]*;[ \t]*name=(?:\"model\"|model(?=[;\r]))")


@dataclass(frozen=True, slots=True)
class RequestOptions:
    model: str | None
    keep_seconds: float | None = None  # after the model's last response; inf: for ever; None: the request does not say


def request_options(request: Request) -> RequestOptions:
    """Read the options from the body, or from the query if the body is empty. Raises WrongUsage."""
    if request.body:
        return parse_options(request.head.value(b"content-type"), request.body)
    return RequestOptions(_model_in_query(request.head.target))


def parse_options(content_type: bytes, body: bytes) -> RequestOptions:
    """Read the options from a JSON or multipart body. Raises WrongUsage if the model is not a string, the time is not a
    time, or a form has no boundary.
    """
    if content_type[:20].lower().startswith(b"multipart/form-data"):
        return RequestOptions(_model_in_form(content_type, body))
    values = _KEYS.values(body)
    return RequestOptions(_model(values.get("model", b"null")), _keep_seconds(values))


def _model_in_query(target: bytes) -> str | None:
    """The value of `?model=NAME`."""
    query = target.partition(b"?")[2]
    if b"model=" not in query:
        return None
    return parse_qs(query.decode("latin-1")).get("model", [None])[-1]


def _model_in_form(content_type: bytes, body: bytes) -> str | None:
    """The value of the form field "model", which is sent beside an upload; None without one."""
    boundary = _BOUNDARY.search(content_type)
    if boundary is None:
        raise WrongUsage("multipart/form-data without a boundary", hint="curl -F model=ID -F file=@FILE …")
    delimiter = b"\r\n--" + (boundary[1] or boundary[2])
    name = None
    first = body.find(delimiter[2:])  # no line break precedes the first one
    if first < 0:
        return None
    start = first + len(delimiter) - 2
    while (end := body.find(delimiter, start)) >= 0:
        head_end = body.find(b"\r\n\r\n", start, end)
        if head_end >= 0 and _MODEL_FIELD.search(body, start, head_end + 2):
            name = body[head_end + 4 : end].decode("utf-8", "replace")
        start = end + len(delimiter)
    return name


def _model(value: bytes) -> str | None:
    if value.startswith(b'"'):
        return json_string(value)
    if value != b"null":
        raise WrongUsage("the request's model is not a string", hint="mmd list   # see the names")
    return None


def _keep_seconds(values: dict[str, bytes]) -> float | None:
    for key in ("keep_alive", "ttl"):  # Ollama's key, and LM Studio's
        if values.get(key, b"null") != b"null":
            return _seconds(key, values[key])
    return None


def _seconds(key: str, value: bytes) -> float:
    try:
        # Integers are read as floats: one of thousands of digits becomes inf, and int() would refuse it.
        raw = json.loads(value, parse_int=float)
        seconds = _duration_seconds(raw) if isinstance(raw, str) else raw
    except ValueError:
        seconds = None
    if not isinstance(seconds, float) or math.isnan(seconds):
        hint = f"""curl … -d '{{"model": "ID", "{key}": "5m"}}'   # or seconds; 0: unload at once, -1: never unload"""
        raise WrongUsage(f"the request's {key} is not a duration", hint=hint)
    return seconds if seconds >= 0 else math.inf


def _duration_seconds(text: str) -> float:
    """Parse "1h30m", or a quoted number of seconds. Raises ValueError."""
    if _NUMBER.fullmatch(text):
        return float(text)
    if not _DURATION.fullmatch(text):
        raise ValueError(text)
    seconds = sum(float(number) * _UNIT_SECONDS[unit] for number, unit in _PART.findall(text))
    return -seconds if text.startswith("-") else seconds
