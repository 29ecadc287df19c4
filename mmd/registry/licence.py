"""What a licence allows, as far as its name says it. No legal advice: the text is the licence's own."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any


class Terms(StrEnum):
    OPEN = "open"  # any use
    CONDITIONS = "conditions"  # commercial use too, under conditions: of use, of size, of naming
    NON_COMMERCIAL = "non-commercial"
    UNKNOWN = "unknown"


# The hub's identifiers (huggingface.co/docs/hub/repositories-licenses), and names that cards give under "other".
_OPEN = re.compile(
    r"apache-2\.0|mit|bsd(-.+)?|isc|zlib|unlicense|wtfpl|cc0-1\.0|cc-by-[234]\.\d|cc-by-sa-[34]\.0|cc|pddl"
    r"|artistic-2\.0|e[cu]?pl-\d\.\d|mpl-2\.0|[al]?gpl(-.+)?|ms-pl|postgresql|ncsa|bsl-1\.0|odc-by|odbl|cdla-.+"
)
# Before "conditions": "cohere-nc" is one of these, and so is all that says so in its name.
_NON_COMMERCIAL = re.compile(r"cc-by-nc.*|.*[-_ ]nc([-_ .].*)?|.*non-?commercial.*|.*research.*|mrl|mnpl(-.+)?|fair.*")
_CONDITIONS = re.compile(
    r"llama\d.*|gemma|openrail(\+\+)?|bigscience-.+|bigcode-.+|creativeml-.+|deepseek.*|qwen|tongyi-qianwen.*|exaone"
    r"|falcon.*|nvidia-open-model.*|modified-mit|kimi.*|minimax.*|hunyuan.*|tencent-hunyuan.*|lfm.*|glm-.*|yi-.*|cc-by-nd-.+"
)


def licence_of(card: Mapping[str, Any], tags: Sequence[str]) -> str:
    """As the hub names it, "apache-2.0"; what stands behind "other" where the card says that; "" where it is silent."""
    named = card.get("license") or next((tag.split(":", 1)[1] for tag in tags if tag.startswith("license:")), "")
    if isinstance(named, list):
        named = " and ".join(map(str, named))
    if named in ("", "other"):
        named = card.get("license_name") or named
    return str(named).lower()


def terms(licence: str) -> Terms:
    for kind, pattern in (
        (Terms.OPEN, _OPEN),
        (Terms.NON_COMMERCIAL, _NON_COMMERCIAL),
        (Terms.CONDITIONS, _CONDITIONS),
    ):
        if pattern.fullmatch(licence):
            return kind
    return Terms.UNKNOWN
