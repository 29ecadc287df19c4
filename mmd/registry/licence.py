"""The licence of a model: its name as on the hub's card, and its terms in one word.

Taken from cards, not from the licences' texts: it helps to find the text and does not replace it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Any

_TAG = "license:"


class Terms(StrEnum):
    """What a licence allows for commercial use."""

    OPEN = "open"  # everything, some with attribution or copyleft
    CONDITIONS = "conditions"  # with a size limit or forbidden uses
    NON_COMMERCIAL = "non-commercial"
    UNKNOWN = "unknown"


# The identifiers of https://huggingface.co/docs/hub/repositories-licenses, sorted by their texts.
_OPEN = re.compile(
    r"apache-2\.0|mit|0bsd|bsd(-.+)?|isc|zlib|ncsa|unlicense|wtfpl|postgresql|ofl-1\.1|bsl-1\.0|ms-pl|afl-3\.0|ecl-2\.0"
    r"|artistic-2\.0|(a|l)?gpl(-.+)?|mpl-2\.0|osl-3\.0|eupl-.+|epl-.+|lppl-.+|gfdl|cc0-.+|cc-by(-sa)?(-\d.*)?|pddl|odbl"
    r"|odc-by|cdla-permissive-.+|openmdw.*"
)
# Forbidden uses (RAIL, Gemma, Falcon, DeepSeek), or a size that needs a permission: 700 million users a month
# (Llama), 100 million (Qwen), an income of 10 million $ (LFM), 50 million (Jamba), 1 million (Stability); Kimi's
# modified MIT asks large ones to show its name, and Tencent leaves the European Union out.
_CONDITIONS = re.compile(
    r".*(openrail|rail-1|llama|gemma|qwen|qianwen|falcon|deepseek|nvidia-|jamba|stabilityai|stable-|modified-mit"
    r"|hunyuan|health-ai|kimi|minimax).*|(lfm|glm-|yi-).*|c-uda|cc-by-nd.*"
)
# The letters NC or the words; for research alone: "qwen-research", "mrl" and "mnpl" of Mistral, "apple-amlr", "exaone"
# of LG, "nsclv1" of NVIDIA, "intel-research", "fair-noncommercial-research".
_NON_COMMERCIAL = re.compile(
    r"(.*[-_.])?nc([-_.].*)?|.*non-?commercial.*|.*research.*|mrl|mnpl.*|.*amlr|exaone.*|nscl.*"
)


def licence_of(card: Mapping[str, Any], tags: Iterable[str] = ()) -> str:
    """Return the licence's name as on the card, such as "apache-2.0", else as in the tags; "" if neither has one.

    "other" is replaced by the card's own name for it if there is one.
    """
    named = card.get("license")
    names = [str(name) for name in named] if isinstance(named, list) else [named] if isinstance(named, str) else []
    own_name = card.get("license_name")
    if names in ([], ["other"]) and isinstance(own_name, str) and own_name:
        names = [own_name]
    names = names or [tag.removeprefix(_TAG) for tag in tags if tag.startswith(_TAG)]
    return ", ".join(_printable(name).lower() for name in names)


def terms(licence: str) -> Terms:
    """Return the terms of the strictest of several licences; UNKNOWN if the name is not known."""
    found = {_terms_of(name.strip().replace(" ", "-")) for name in licence.lower().split(",")}
    strictest_first = (Terms.NON_COMMERCIAL, Terms.UNKNOWN, Terms.CONDITIONS, Terms.OPEN)
    return next(one for one in strictest_first if one in found)


def _terms_of(name: str) -> Terms:
    if _NON_COMMERCIAL.fullmatch(name):
        return Terms.NON_COMMERCIAL
    if _OPEN.fullmatch(name):
        return Terms.OPEN
    return Terms.CONDITIONS if _CONDITIONS.fullmatch(name) else Terms.UNKNOWN


def _printable(name: str) -> str:
    """Cut a name from a card to one printable line: cards are untrusted."""
    return "".join(letter for letter in name if letter.isprintable())[:80].strip()
