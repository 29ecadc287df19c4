"""The order of search results, so that the first is usually the one to choose."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from math import log10

# In points; ten times the downloads are one point.
_EXTRA_WORD = 1.0  # "Coder" or "abliterated" if the search did not ask for it
_PARTIAL_WORD = 2.0  # "mini" in "Gemini" is hardly what was searched for
_OFFICIAL = 1.0  # published by the makers of the model
_YEAR = 0.5  # for each year that it is older than the newest result

# Words for a size, date or format of the same weights, and words that nearly every chat model has.
_NEUTRAL = re.compile(
    r"gguf|ggml|awq|gptq|fp8|fp16|bf16|nvfp4|mxfp4|int[48]|w\da\d+|[48]bit|dynamic|bnb|imat(rix)?|i1|ud|hf|qat|quantized"
    r"|i?q\d.*|[ksmlx]{1,2}|(\d+x|a)?\d[\d.]*[bm]?|instruct|it|chat"
)
_VERSION = re.compile(r"[\d.]+")
_MONTH = re.compile(r"(\d{4})-(\d\d)-")


@dataclass(frozen=True, slots=True)
class RankedRepository:
    """What the score of a repository depends on."""

    id: str  # OWNER/NAME
    downloads: int  # in a month
    updated: str | None  # ISO 8601
    bases: tuple[str, ...] = ()  # the repositories that it is derived from; empty for an original


def scores(asked: str, found: Sequence[RankedRepository]) -> list[float]:
    """Return a score for each repository; higher is shown first. It grows with downloads, with a name that matches the
    search and has few other words, if it is official, and if it is new compared with the other results.
    """
    newest_years = max((_years(one.updated) for one in found), default=0.0)
    return [_score(asked, one, newest_years) for one in found]


def _score(asked: str, one: RankedRepository, newest_years: float) -> float:
    owner, _, name = one.id.lower().partition("/")
    age_years = newest_years - (_years(one.updated) or newest_years)
    is_official = not one.bases or any(base.lower().partition("/")[0] == owner for base in one.bases)
    return (
        log10(1 + one.downloads)
        + (_OFFICIAL if is_official else 0)
        - _YEAR * age_years
        - _mismatch(_words(asked), _words(owner), _words(name))
    )


def _mismatch(asked: set[str], owner: set[str], name: set[str]) -> float:
    parts = [wanted for wanted in asked if not any(_means(wanted, word) for word in name | owner)]
    extra = [word for word in name if not (_NEUTRAL.fullmatch(word) or any(_means(wanted, word) for wanted in asked))]
    return _EXTRA_WORD * len(extra) + _PARTIAL_WORD * len(parts)


def _means(wanted: str, word: str) -> bool:
    """Return whether a word of the search means a word of the name, as "qwen" means "qwen2.5"."""
    return word == wanted or (word.startswith(wanted) and _VERSION.fullmatch(word[len(wanted) :]) is not None)


def _words(text: str) -> set[str]:
    return set(re.split(r"[^a-z\d.]+", text.lower())) - {""}


def _years(updated: str | None) -> float:
    found = _MONTH.match(updated or "")
    return int(found[1]) + int(found[2]) / 12 if found else 0.0
