"""In which order the repositories that a search found are shown, so that the first is the one to take."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from math import log10

# In points, where ten times the downloads are one.
_SURPLUS_WORD = 1.0  # "Coder", "abliterated", where nobody asked for it
_PART_OF_A_WORD = 2.0  # "mini" in "Gemini": what was asked for is hardly this
_OFFICIAL = 1.0  # by those who made the model itself
_YEAR = 0.5  # of the time since, against the newest of those found

# What names a size, a date or a form of the same weights rather than other weights; and what nearly every model is that
# people talk to.
_NEUTRAL = re.compile(
    r"gguf|ggml|awq|gptq|fp8|fp16|bf16|nvfp4|mxfp4|int[48]|w\da\d+|[48]bit|dynamic|bnb|imat(rix)?|i1|ud|hf|qat|quantized"
    r"|i?q\d.*|[ksmlx]{1,2}|(\d+x|a)?\d[\d.]*[bm]?|instruct|it|chat"
)
_VERSION = re.compile(r"[\d.]+")
_MONTH = re.compile(r"(\d{4})-(\d\d)-")


@dataclass(frozen=True, slots=True)
class RankedRepository:
    """What is known of a repository beside its models."""

    id: str  # OWNER/NAME
    downloads: int  # in a month
    updated: str | None  # ISO 8601
    bases: tuple[str, ...] = ()  # repositories that it is made from; none where it is an original


def appeals(asked: str, found: Sequence[RankedRepository]) -> list[float]:
    """Of each, the larger, the sooner it is to be shown: many take it, it is what was asked for and little else, made
    by those who made the model, and new. Dates are compared among those found, not with a clock.
    """
    newest_years = max((_years(one.updated) for one in found), default=0.0)
    return [_appeal(asked, one, newest_years) for one in found]


def _appeal(asked: str, one: RankedRepository, newest_years: float) -> float:
    owner, _, name = one.id.lower().partition("/")
    age_years = newest_years - (_years(one.updated) or newest_years)
    is_official = not one.bases or any(base.lower().partition("/")[0] == owner for base in one.bases)
    return (
        log10(1 + one.downloads)
        + (_OFFICIAL if is_official else 0)
        - _YEAR * age_years
        - _unlike(_words(asked), _words(owner), _words(name))
    )


def _unlike(asked: set[str], owner: set[str], name: set[str]) -> float:
    parts = [wanted for wanted in asked if not any(_is_meant(wanted, word) for word in name | owner)]
    surplus = [
        word for word in name if not (_NEUTRAL.fullmatch(word) or any(_is_meant(wanted, word) for wanted in asked))
    ]
    return _SURPLUS_WORD * len(surplus) + _PART_OF_A_WORD * len(parts)


def _is_meant(wanted: str, word: str) -> bool:
    """As "qwen" means "qwen2.5" too."""
    return word == wanted or (word.startswith(wanted) and _VERSION.fullmatch(word[len(wanted) :]) is not None)


def _words(text: str) -> set[str]:
    return set(re.split(r"[^a-z\d.]+", text.lower())) - {""}


def _years(updated: str | None) -> float:
    found = _MONTH.match(updated or "")
    return int(found[1]) + int(found[2]) / 12 if found else 0.0
