"""Of several resident models, the one that was asked for last is active, in every process and after a restart."""

from __future__ import annotations

import asyncio

import pytest

from mmd.control.state import last_asked
from mmd.control.state.last_asked import AskedModels, asked_models, note_asked
from mmd.control.state.residencies import active_of, next_active
from mmd.plan.residency import Pair, UnitState

UP = UnitState("active", "running", loaded=True)
HELD = UnitState("active", "exited", loaded=True)
LOADING = UnitState("activating", "start-post", loaded=True)
DOWN = UnitState()


def pair(type: str = "chat", engine: UnitState = UP, token: UnitState = HELD) -> Pair:
    return Pair(engine, token, engine_name="llama-server", type=type)


def nothing() -> None:
    pass


def test_newest_is_first() -> None:
    assert asked_models() == ()
    for name in ("a", "b", "a", "c"):
        note_asked(name)
    assert asked_models() == ("c", "a", "b")


def test_file_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(last_asked, "_MAX_MODELS", 3)
    for name in "abcd":
        note_asked(name)
    assert asked_models() == ("d", "c", "b")


def test_generating_model_asked_for_last_is_active() -> None:
    pairs = {"a": pair(), "b": pair("vision"), "e": pair("embedding")}
    assert active_of(pairs, ("e", "b", "a")) == "b"
    assert active_of(pairs, ("a", "e", "b")) == "a"
    assert active_of(pairs, ()) == "a"  # if neither was asked for, the choice is still the same each time


def test_model_that_is_not_resident_is_not_active() -> None:
    asleep, loading = pair(token=DOWN), pair(engine=LOADING)
    assert active_of({"a": pair(), "b": asleep, "c": loading}, ("b", "c", "a")) == "a"
    assert active_of({"b": asleep}, ("b",)) is None


def test_model_of_another_type_is_active_if_it_is_alone() -> None:
    """With one resident model, of whatever type, a request may leave out its name, as in mmd 0.1."""
    assert active_of({"e": pair("embedding"), "r": pair("reranker")}, ("r", "e")) == "r"


def test_model_of_an_unknown_type_counts_as_generating() -> None:
    assert active_of({"old": pair(""), "e": pair("embedding")}, ("e",)) == "old"


def test_model_that_is_loading_is_the_next_active_one() -> None:
    pairs = {"a": pair(token=UnitState("active", "exited", "stop", loaded=True)), "b": pair(engine=LOADING)}
    assert active_of(pairs, ("b", "a")) is None
    assert next_active(pairs, ("b", "a")) == "b"


async def test_gateway_writes_once_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(last_asked, "_WRITE_SECONDS", 0.05)
    written: list[tuple[str, ...]] = []
    has_both = asyncio.Event()

    def on_write() -> None:
        written.append(asked_models())
        if len(written) == 2:
            has_both.set()

    asked = AskedModels(on_write)
    for name in ("a", "b", "a", "b"):
        asked.note(name)
        assert asked.order()[0] == name
    assert written == [("a",)]
    await asyncio.wait_for(has_both.wait(), 5)
    assert written == [("a",), ("b", "a")]
    asked.close()


async def test_gateway_that_ends_writes_what_it_knows() -> None:
    asked = AskedModels(nothing)
    asked.note("a")
    asked.note("b")
    asked.close()
    assert AskedModels(nothing).order() == ("b", "a")


async def test_gateway_sees_what_another_process_writes() -> None:
    asked = AskedModels(nothing)
    asked.note("a")
    note_asked("b")
    assert asked.order() == ("b", "a")
    asked.close()
