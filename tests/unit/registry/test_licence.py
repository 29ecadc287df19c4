"""Licences from cards, and what they allow."""

from __future__ import annotations

from typing import Any

import pytest

from mmd.registry.licence import Terms, licence_of, terms


@pytest.mark.parametrize(
    ("card", "tags", "licence"),
    [
        ({"license": "apache-2.0"}, (), "apache-2.0"),
        ({"license": "other", "license_name": "mrl"}, ("license:other",), "mrl"),
        ({"license": "other"}, ("license:other",), "other"),
        ({"license": ["mit", "cc-by-nc-4.0"]}, (), "mit, cc-by-nc-4.0"),
        ({"license_name": "qwen-research"}, (), "qwen-research"),
        ({}, ("gguf", "license:gemma"), "gemma"),
        ({"license": "Apache-2.0"}, (), "apache-2.0"),
        ({}, (), ""),
        ({"license": None, "license_name": 7}, (), ""),
        ({"license": "mit\n\x1b[31m"}, (), "mit[31m"),
        ({"license": "x" * 1000}, (), "x" * 80),
    ],
)
def test_the_name_is_in_the_card_or_its_tags(card: dict[str, Any], tags: tuple[str, ...], licence: str) -> None:
    assert licence_of(card, tags) == licence


@pytest.mark.parametrize(
    ("licence", "allows"),
    [
        *((name, Terms.OPEN) for name in ("apache-2.0", "MIT", "bsd-3-clause", "cc-by-4.0", "cc-by-sa-4.0", "cc0-1.0")),
        *((name, Terms.OPEN) for name in ("gpl-3.0", "agpl-3.0", "lgpl", "mpl-2.0", "unlicense")),
        *((name, Terms.CONDITIONS) for name in ("llama2", "llama3.1", "llama4", "gemma", "openrail", "openrail++")),
        *((name, Terms.CONDITIONS) for name in ("tongyi-qianwen", "qwen", "deepseek", "nvidia-open-model-license")),
        *((name, Terms.CONDITIONS) for name in ("modified-mit", "lfm1.0", "falcon-llm-license", "cc-by-nd-4.0")),
        *((name, Terms.NON_COMMERCIAL) for name in ("cc-by-nc-4.0", "cc-by-nc-sa-4.0", "cc-by-nc-nd-3.0", "mrl")),
        *((name, Terms.NON_COMMERCIAL) for name in ("qwen-research", "apple-amlr", "mnpl-0.1", "exaone", "nsclv1")),
        *((name, Terms.NON_COMMERCIAL) for name in ("fair-noncommercial-research-license", "intel-research")),
        *((name, Terms.NON_COMMERCIAL) for name in ("some non-commercial thing", "mit, cc-by-nc-4.0", "own-nc")),
        *((name, Terms.UNKNOWN) for name in ("", "other", "unknown", "my-licence", "apache-2.0, mine", "ncis")),
    ],
)
def test_what_a_licence_allows(licence: str, allows: Terms) -> None:
    assert terms(licence) is allows
