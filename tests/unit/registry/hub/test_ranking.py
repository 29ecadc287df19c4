"""The order of search results, with numbers similar to the hub's for these repositories."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from mmd.registry.hub.ranking import RankedRepository, scores


def one(id: str, downloads: int, month: str = "2025-05", base: str = "") -> RankedRepository:
    return RankedRepository(id, downloads, f"{month}-01T00:00:00.000Z", (base,) if base else ())


def order(asked: str, *found: RankedRepository) -> list[str]:
    return [
        standing.id for _, standing in sorted(zip(scores(asked, found), found, strict=True), key=lambda pair: -pair[0])
    ]


def test_what_most_people_take_is_first() -> None:
    found = (
        one("bartowski/Qwen3-8B-GGUF", 9_000, base="Qwen/Qwen3-8B"),
        one("unsloth/Qwen3-8B-GGUF", 90_000, base="Qwen/Qwen3-8B"),
    )
    assert order("qwen3 8b", *found)[0] == "unsloth/Qwen3-8B-GGUF"


def test_those_who_made_it_are_worth_ten_times_the_downloads() -> None:
    others, theirs = (
        one("me/Qwen3-8B-GGUF", 50_000, base="Qwen/Qwen3-8B"),
        one("Qwen/Qwen3-8B-GGUF", 10_000, base="Qwen/Qwen3-8B"),
    )
    assert order("qwen3 8b", others, theirs) == [theirs.id, others.id]
    assert order("qwen3 8b", replace(others, downloads=500_000), theirs) == [others.id, theirs.id]


def test_other_models_come_after_the_one_that_was_named() -> None:
    plain, coder = one("a/Qwen2.5-7B-Instruct-GGUF", 40_000), one("a/Qwen2.5-Coder-7B-Instruct-GGUF", 200_000)
    assert order("qwen 7b instruct", coder, plain) == [plain.id, coder.id]
    assert order("qwen coder 7b", plain, coder) == [coder.id, plain.id]
    tuned = one("a/Qwen2.5-7B-Instruct-abliterated-GGUF", 100_000)
    assert order("qwen 7b instruct", tuned, plain) == [plain.id, tuned.id]


def test_a_part_of_a_word_is_hardly_meant() -> None:
    assert order("mini 3b", one("a/Gemini-like-3b", 90_000), one("a/mini-3b", 2_000))[0] == "a/mini-3b"
    assert order("qwen 8b", one("a/Qwen-1.8B", 90_000), one("a/Qwen3-8B", 3_000))[0] == "a/Qwen3-8B"


def test_an_owner_may_be_named() -> None:
    found = (one("bartowski/Qwen3-8B-GGUF", 90_000), one("unsloth/Qwen3-8B-GGUF", 9_000))
    assert order("unsloth qwen3 8b", *found)[0] == "unsloth/Qwen3-8B-GGUF"


def test_forms_and_sizes_of_a_model_are_no_other_model() -> None:
    found = (one("a/Qwen3-30B-A3B-Instruct-2507-UD-GGUF", 20_000), one("a/Qwen3-4B", 10_000))
    assert order("qwen3", *found)[0] == "a/Qwen3-30B-A3B-Instruct-2507-UD-GGUF"


def test_the_newer_of_two_alike() -> None:
    found = (one("a/Qwen1.5-7B-Chat-GGUF", 20_000, "2024-02"), one("a/Qwen2.5-7B-Instruct-GGUF", 20_000, "2024-09"))
    assert order("qwen 7b", *found)[0] == "a/Qwen2.5-7B-Instruct-GGUF"


def test_who_says_no_date_is_not_held_to_be_old() -> None:
    undated = RankedRepository("a/b", 10, None)
    assert scores("b", (undated, one("a/b", 10)))[0] == scores("b", (undated, one("a/b", 10)))[1]


@given(st.text(max_size=30), st.text(max_size=30), st.integers(0, 10**9), st.text(max_size=12))
def test_anything_can_be_ranked(asked: str, id: str, downloads: int, updated: str) -> None:
    """Names and dates come from outside."""
    (found,) = scores(asked, (RankedRepository(id, downloads, updated),))
    assert found == found  # a number


@given(st.integers(0, 10**9), st.integers(0, 10**9))
def test_more_downloads_are_never_less(some: int, more: int) -> None:
    less, larger = scores("a", [one("a/a", count) for count in sorted((some, more))])
    assert less <= larger
