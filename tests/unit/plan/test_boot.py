"""What a boot does next, for everything that may run by then."""

from __future__ import annotations

import pytest

from mmd.errors import WrongUsage
from mmd.plan.boot import Activate, End, Load, Order, Startup, Step, Yield, next_step, order
from mmd.plan.residency import Pair, UnitState

ABSENT = Pair()
_UP, _DOWN = UnitState("active", "running", loaded=True), UnitState("inactive", "dead", loaded=True)
RESIDENT = Pair(_UP, UnitState("active", "exited", loaded=True))
ASLEEP = Pair(_UP, _DOWN)
STARTING = Pair(UnitState("activating", "start-post", "start", loaded=True), UnitState("active", "exited", loaded=True))
FAILED = Pair(UnitState("failed", "failed", loaded=True), UnitState("active", "exited", loaded=True))
TODO = Order(sleepers=("a", "b"), default="d")


@pytest.mark.parametrize(
    ("pairs", "tried", "step"),
    [
        ({}, "", Load("a")),
        ({"a": ASLEEP}, "a", Load("b")),
        ({"a": ASLEEP}, "", Load("b")),
        ({"a": FAILED}, "", Load("a")),
        ({"a": FAILED}, "a", Load("b")),
        ({"a": ASLEEP, "b": ASLEEP}, "ab", Activate("d")),
        ({"a": ASLEEP, "b": ASLEEP}, "", Activate("d")),
        ({"a": ASLEEP, "b": ASLEEP, "d": ASLEEP}, "", Activate("d")),
        ({}, "ab", Activate("d")),
        ({"d": FAILED}, "abd", End()),
        ({"d": RESIDENT}, "abd", End()),
        ({"a": ASLEEP, "b": ASLEEP, "d": RESIDENT}, "", End()),
        # the default, requested or loaded by an earlier boot
        ({"a": ASLEEP, "b": ASLEEP, "d": STARTING}, "", Activate("d")),
        ({"d": RESIDENT}, "", Yield("d")),
        ({"d": STARTING}, "a", Yield("d")),
        # another model
        ({"x": RESIDENT}, "", Yield("x")),
        ({"x": STARTING}, "ab", Yield("x")),
        ({"x": ASLEEP}, "", Load("a")),
        ({"a": RESIDENT}, "a", Yield("a")),
        ({"a": ASLEEP, "b": RESIDENT}, "a", Yield("b")),
        ({"x": RESIDENT}, "abd", End()),
    ],
)
def test_next_step(pairs: dict[str, Pair], tried: str, step: Step) -> None:
    assert next_step(TODO, pairs, tried=set(tried)) == step


@pytest.mark.parametrize(
    ("pairs", "step"),
    [
        ({"b": RESIDENT}, Load("b")),
        ({"b": STARTING}, Load("b")),
        ({"a": ASLEEP, "b": RESIDENT}, Load("b")),
        ({"b": ASLEEP}, Load("a")),
        ({"a": RESIDENT}, Yield("a")),
        ({"x": RESIDENT, "b": ASLEEP}, Yield("x")),
        ({"d": RESIDENT}, Yield("d")),
        ({"a": ASLEEP, "b": ASLEEP, "d": STARTING}, Activate("d")),
        ({}, Load("a")),
    ],
)
def test_next_step_after_a_boot_that_was_killed_with_b(pairs: dict[str, Pair], step: Step) -> None:
    assert next_step(TODO, pairs, tried=(), left_behind="b") == step


def test_boot_yields_to_a_model_no_longer_set_to_sleep() -> None:
    assert next_step(TODO, {"x": RESIDENT}, tried=(), left_behind="x") == Yield("x")


@pytest.mark.parametrize("pairs", [{}, {"x": RESIDENT}, {"a": ASLEEP}])
def test_nothing_to_load_is_in_nobodys_way(pairs: dict[str, Pair]) -> None:
    assert next_step(Order((), None), pairs, tried=()) == End()


def test_without_a_default_the_sleepers_are_all() -> None:
    assert next_step(Order(("a",), None), {"a": ASLEEP}, tried="a") == End()


def test_order_is_the_registrys() -> None:
    startups = {"c": Startup.SLEEP, "a": Startup.SLEEP, "b": Startup.ACTIVE, "d": Startup.DISABLED}
    assert order(startups, ["a", "b", "c", "d"]) == Order(("a", "c"), "b")


def test_order_tells_what_is_not_registered() -> None:
    startups = {"gone": Startup.SLEEP, "away": Startup.ACTIVE, "off": Startup.DISABLED}
    assert order(startups, ["a"]) == Order((), None, unknown=("away", "gone"))


def test_two_defaults_are_named() -> None:
    with pytest.raises(WrongUsage, match="a and b") as refusal:
        order(dict.fromkeys("ab", Startup.ACTIVE), ["a", "b"])
    assert refusal.value.hint.startswith("mmd default a")
