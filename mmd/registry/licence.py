"""The licence of a model: its name as the hub's cards say it, and what it allows in a word.

Read from cards, not from the licences' texts: what is said here helps to find the text, and does not replace it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Any

_TAG = "license:"


class Terms(StrEnum):
    """What a licence allows those who earn money."""

    OPEN = "open"  # everything, if some ask to be named or that changes stay open
    CONDITIONS = "conditions"  # much, up to a size, or not for some uses
    NON_COMMERCIAL = "non-commercial"
    UNKNOWN = "unknown"


# The identifiers of https://huggingface.co/docs/hub/repositories-licenses, by what their texts say.
_OPEN = re.compile(
    r"apache-2\.0|mit|0bsd|bsd(-.+)?|isc|zlib|ncsa|unlicense|wtfpl|postgresql|ofl-1\.1|bsl-1\.0|ms-pl|afl-3\.0|ecl-2\.0"
    r"|artistic-2\.0|(a|l)?gpl(-.+)?|mpl-2\.0|osl-3\.0|eupl-.+|epl-.+|lppl-.+|gfdl|cc0-.+|cc-by(-sa)?(-\d.*)?|pddl|odbl"
    r"|odc-by|cdla-permissive-.+|openmdw.*"
)
# Uses that are forbidden (RAIL, Gemma, Falcon, DeepSeek), or a size from which one must ask: 700 million users a month
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
    """As a card names it, "apache-2.0", else as the tags do; "other" only where nothing stands behind it, "" where
    neither says anything.
    """
    said = card.get("license")
    names = [str(name) for name in said] if isinstance(said, list) else [said] if isinstance(said, str) else []
    own_name = card.get("license_name")
    if names in ([], ["other"]) and isinstance(own_name, str) and own_name:
        names = [own_name]
    names = names or [tag.removeprefix(_TAG) for tag in tags if tag.startswith(_TAG)]
    return ", ".join(_printable(name).lower() for name in names)


def terms(licence: str) -> Terms:
    """Of several licences the strictest; what is not known is said to be so."""
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
    """Anybody may write a card: no line breaks, no control characters, and no novel."""
    return "".join(letter for letter in name if letter.isprintable())[:80].strip()
