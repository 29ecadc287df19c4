"""How many parameters are looked for, as people write it."""

from __future__ import annotations

import re

from mmd.errors import WrongUsage

_SIZE = re.compile(r"([0-9]{1,5}(?:\.[0-9]{1,3})?)([bm])", re.IGNORECASE)
_UNITS = {"b": 1_000_000_000, "m": 1_000_000}
_ABOUT = 0.15  # a "7B" has 6.7 to 7.6 billion


def parse_size(text: str | None) -> tuple[int, int]:
    """Least and most parameters of "7b..14b", "..4b", "30b.." or "8b", which is about so many; 0 is no bound.

    Raises WrongUsage.
    """
    if not text:
        return 0, 0
    least, dots, most = text.partition("..")
    if not dots:
        about = _parameters(least, text)
        return round(about * (1 - _ABOUT)), round(about * (1 + _ABOUT))
    return _parameters(least, text) if least else 0, _parameters(most, text) if most else 0


def _parameters(word: str, text: str) -> int:
    found = _SIZE.fullmatch(word)
    if found is None:
        raise WrongUsage(f"{text!r} is no size of a model", hint="mmd search --size 7b..14b TEXT")
    return round(float(found[1]) * _UNITS[found[2].lower()])
