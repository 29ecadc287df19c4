"""A range of parameter counts as users write it: "7b..14b"."""

from __future__ import annotations

import re

from mmd.errors import WrongUsage

_SIZE = re.compile(r"([0-9]{1,5}(?:\.[0-9]{1,3})?)([bm])", re.IGNORECASE)
_UNITS = {"b": 1_000_000_000, "m": 1_000_000}
_TOLERANCE = 0.15  # a "7B" has 6.7 to 7.6 billion


def parse_size(text: str | None) -> tuple[int, int]:
    """Return the minimum and maximum of "7b..14b", "..4b", "30b.." or "8b" (± 15 %); 0 means unbounded.

    Raises WrongUsage.
    """
    if not text:
        return 0, 0
    minimum, dots, maximum = text.partition("..")
    if not dots:
        about = _parameters(minimum, text)
        return round(about * (1 - _TOLERANCE)), round(about * (1 + _TOLERANCE))
    return _parameters(minimum, text) if minimum else 0, _parameters(maximum, text) if maximum else 0


def _parameters(word: str, text: str) -> int:
    found = _SIZE.fullmatch(word)
    if found is None:
        raise WrongUsage(f"{text!r} is not a model size", hint="mmd search --size 7b..14b TEXT")
    return round(float(found[1]) * _UNITS[found[2].lower()])
