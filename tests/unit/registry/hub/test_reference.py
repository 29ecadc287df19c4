from __future__ import annotations

import pytest

from mmd.errors import WrongUsage
from mmd.registry.hub.reference import Reference, parse

MIRROR = "https://mirror.example:8443"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("me/tiny", Reference("me/tiny")),
        ("me/tiny:Q4_K_M", Reference("me/tiny", "Q4_K_M")),
        ("me/tiny:sub/tiny.gguf", Reference("me/tiny", "sub/tiny.gguf")),
        ("hf:me/tiny:tiny.gguf", Reference("me/tiny", "tiny.gguf")),
        ("hf://me/tiny", Reference("me/tiny")),
        ("hf.co/me/tiny:Q8_0", Reference("me/tiny", "Q8_0")),
        ("huggingface.co/me/tiny", Reference("me/tiny")),
        ("https://huggingface.co/me/tiny", Reference("me/tiny")),
        ("https://huggingface.co/me/tiny/", Reference("me/tiny")),
        ("https://hf.co/me/tiny:Q8_0", Reference("me/tiny", "Q8_0")),
        ("https://huggingface.co/me/tiny/tree/main", Reference("me/tiny", None, "main")),
        ("https://huggingface.co/me/tiny/tree/main/sub", Reference("me/tiny", None, "main")),
        ("https://huggingface.co/me/tiny/blob/main/tiny.gguf", Reference("me/tiny", "tiny.gguf", "main")),
        ("https://huggingface.co/me/tiny/resolve/v1/a/b.gguf?download=true", Reference("me/tiny", "a/b.gguf", "v1")),
        ("https://huggingface.co/me/tiny/blob/refs%2Fpr%2F1/t.gguf", Reference("me/tiny", "t.gguf", "refs/pr/1")),
        (f"{MIRROR}/me/tiny", Reference("me/tiny")),
    ],
)
def test_what_people_write(text: str, expected: Reference) -> None:
    assert parse(text, MIRROR) == expected


@pytest.mark.parametrize(
    "text",
    [
        *("", "tiny", "/", "me/", "/tiny", "me/tiny:", "a/b/c", "me/tiny/x:y", "ftp://huggingface.co/me/tiny"),
        *("https://example.com/me/tiny", "https://huggingface.co/datasets/me/tiny", "https://huggingface.co/tiny"),
        "https://huggingface.co/me/tiny/discussions/1",
    ],
)
def test_what_names_no_model(text: str) -> None:
    with pytest.raises(WrongUsage, match="does not name a model on the hub"):
        parse(text, MIRROR)
