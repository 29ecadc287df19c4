"""What a request says to the gateway itself: which model it is for, and for how long that is to stay afterwards."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass

from mmd.errors import WrongUsage
from mmd.gateway.proxy.json_keys import TopLevelKeys, text
from mmd.gateway.proxy.model_name import model_in_form

_KEYS = TopLevelKeys("model", "keep_alive", "ttl")

# Go's, which Ollama's clients send.
_DURATION = re.compile(r"[+-]?(?:(?:\d+\.?\d*|\.\d+)(?:ns|us|µs|μs|ms|s|m|h))+", re.ASCII)
_PART = re.compile(r"(\d+\.?\d*|\.\d+)([a-zµμ]+)", re.ASCII)
_UNIT_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_NUMBER = re.compile(r"[+-]?\d+(?:\.\d+)?", re.ASCII)


@dataclass(frozen=True, slots=True)
class RequestOptions:
    model: str | None
    keep_seconds: float | None = None  # after its last answer; inf: for ever; None where the request does not say


def parse_options(content_type: bytes, body: bytes) -> RequestOptions:
    """Raises WrongUsage where the model is not a name, or the time is none."""
    if content_type[:20].lower().startswith(b"multipart/form-data"):
        return RequestOptions(model_in_form(content_type, body))
    values = _KEYS.values(body)
    return RequestOptions(_model(values.get("model", b"null")), _keep_seconds(values))


def _model(value: bytes) -> str | None:
    if value.startswith(b'"'):
        return text(value)
    if value != b"null":
        raise WrongUsage("the request's model is not a string", hint="mmd list   # see the names")
    return None


def _keep_seconds(values: dict[str, bytes]) -> float | None:
    for key in ("keep_alive", "ttl"):  # Ollama's word, and LM Studio's
        if values.get(key, b"null") != b"null":
            return _seconds(key, values[key])
    return None


def _seconds(key: str, value: bytes) -> float:
    try:
        # Integers as floats: those of thousands of digits are for ever, too.
        said = json.loads(value, parse_int=float)
        seconds = _duration_seconds(said) if isinstance(said, str) else said
    except ValueError:
        seconds = None
    if not isinstance(seconds, float) or math.isnan(seconds):
        hint = f"""curl … -d '{{"model": "ID", "{key}": "5m"}}'   # or seconds; 0: leave at once, -1: stay for ever"""
        raise WrongUsage(f"the request's {key} is not a time", hint=hint)
    return seconds if seconds >= 0 else math.inf


def _duration_seconds(said: str) -> float:
    """Of "1h30m", or of a number of seconds in quotes."""
    if _NUMBER.fullmatch(said):
        return float(said)
    if not _DURATION.fullmatch(said):
        raise ValueError(said)
    seconds = sum(float(number) * _UNIT_SECONDS[unit] for number, unit in _PART.findall(said))
    return -seconds if said.startswith("-") else seconds
