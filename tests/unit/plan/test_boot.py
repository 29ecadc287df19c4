"""What a boot does next, for everything that may run by then."""

from __future__ import annotations

import pytest

from mmd.errors import WrongUsage
from mmd.plan.boot import (
    LAST,
    Activate,
    Default,
    DefaultKind,
    End,
    Load,
    Order,
    Startup,
    Step,
    defaults,
    next_step,
    only_default,
    order,
)
from mmd.plan.residency import Pair, UnitState

ABSENT = Pair()
_UP, _DOWN = UnitState("active", "running", loaded=True), UnitState("inactive", "dead", loaded=True)
RESIDENT = Pair(_UP, UnitState("active", "exited", loaded=True))
ASLEEP = Pair(_UP, _DOWN, kept={"ram": 0})
STARTING = Pair(UnitState("activating", "start-post", "start", loaded=True), UnitState("active", "exited", loaded=True))
FAILED = Pair(UnitState("failed", "failed", loaded=True), UnitState("active", "exited", loaded=True))
TODO = Order(sleepers=("a", "b"), default=("d",))


@pytest.mark.parametrize(
    ("pairs", "tried", "step"),
    [
        ({}, "", Load("a")),
        ({"a": ASLEEP}, "a", Load("b")),
        ({"a": ASLEEP}, "", Load("b")),
        ({"a": FAILED}, "", Load("a")),
        ({"a": FAILED}, "a", Load("b")),
        ({"a": ASLEEP, "b": ASLEEP}, "ab", Activate(("d",))),
        ({"a": ASLEEP, "b": ASLEEP}, "", Activate(("d",))),
        ({"a": ASLEEP, "b": ASLEEP, "d": ASLEEP}, "", Activate(("d",))),
        ({}, "ab", Activate(("d",))),
        ({"d": FAILED}, "abd", End()),
        ({"d": RESIDENT}, "abd", End()),
        ({"a": ASLEEP, "b": ASLEEP, "d": RESIDENT}, "", End()),
        # the default, requested or loaded by an earlier boot
        ({"a": ASLEEP, "b": ASLEEP, "d": STARTING}, "", Activate(("d",))),
        ({"d": RESIDENT}, "", Load("a")),
        ({"d": STARTING}, "a", Load("b")),
        # a model that a user or client asked for stays awake
        ({"a": RESIDENT}, "", Load("b")),
        ({"a": STARTING}, "", Load("b")),
        ({"a": RESIDENT, "b": RESIDENT}, "", Activate(("d",))),
        ({"a": RESIDENT}, "a", Load("b")),
        # other models may leave no room: the step says so
        ({"x": RESIDENT}, "", Load("a")),
        ({"x": ASLEEP}, "", Load("a")),
        ({"x": RESIDENT}, "ab", Activate(("d",))),
        ({"x": RESIDENT}, "abd", End()),
    ],
)
def test_next_step(pairs: dict[str, Pair], tried: str, step: Step) -> None:
    assert next_step(TODO, pairs, tried=set(tried)) == step


@pytest.mark.parametrize(
    ("pairs", "tried", "step"),
    [
        ({}, "", Activate(("d", "e"))),
        ({"d": RESIDENT}, "", Activate(("d", "e"))),
        ({"d": ASLEEP, "e": RESIDENT}, "", Activate(("d", "e"))),
        ({"d": RESIDENT, "e": RESIDENT}, "", End()),
        ({"d": RESIDENT}, "de", End()),
    ],
)
def test_models_of_a_setup_are_one_step(pairs: dict[str, Pair], tried: str, step: Step) -> None:
    assert next_step(Order((), ("d", "e")), pairs, tried=set(tried)) == step


@pytest.mark.parametrize(
    ("pairs", "step"),
    [
        ({"b": RESIDENT}, Load("a")),
        ({"a": ASLEEP, "b": RESIDENT}, Load("b")),
        ({"a": ASLEEP, "b": STARTING}, Load("b")),
        ({"b": ASLEEP}, Load("a")),
        ({"a": RESIDENT}, Load("b")),
        ({"a": ASLEEP, "b": ASLEEP, "d": STARTING}, Activate(("d",))),
        ({}, Load("a")),
    ],
)
def test_next_step_after_a_boot_that_was_killed_with_b(pairs: dict[str, Pair], step: Step) -> None:
    assert next_step(TODO, pairs, tried=(), left_behind="b") == step


def test_model_left_behind_and_no_longer_set_to_sleep_stays() -> None:
    assert next_step(Order(("a",), ()), {"a": ASLEEP, "x": RESIDENT}, tried=(), left_behind="x") == End()


@pytest.mark.parametrize("pairs", [{}, {"x": RESIDENT}, {"a": ASLEEP}])
def test_nothing_to_load_is_in_nobodys_way(pairs: dict[str, Pair]) -> None:
    assert next_step(Order((), ()), pairs, tried=()) == End()


def test_without_a_default_the_sleepers_are_all() -> None:
    assert next_step(Order(("a",), ()), {"a": ASLEEP}, tried="a") == End()


def test_order_is_the_registrys() -> None:
    startups = {"c": Startup.SLEEP, "a": Startup.SLEEP, "b": Startup.ACTIVE, "d": Startup.DISABLED}
    assert order(startups, ["a", "b", "c", "d"], ["b"]) == Order(("a", "c"), ("b",))


def test_order_tells_what_is_not_registered() -> None:
    startups = {"gone": Startup.SLEEP, "away": Startup.ACTIVE, "off": Startup.DISABLED}
    assert order(startups, ["a"], ["away"]) == Order((), (), unknown=("away", "gone"))


@pytest.mark.parametrize(
    ("models", "setups", "restore_last", "default"),
    [
        ("", "", False, None),
        ("a", "", False, Default("a", DefaultKind.MODEL)),
        ("", "rag", False, Default("rag", DefaultKind.SETUP)),
        ("", "", True, LAST),
    ],
)
def test_default(models: str, setups: str, restore_last: bool, default: Default | None) -> None:
    assert only_default(_defaults(models, setups, restore_last)) == default


@pytest.mark.parametrize(
    ("models", "setups", "restore_last", "named"),
    [
        ("a b", "", False, "a and b both have"),
        ("a", "rag", False, "a and rag both have"),
        ("", "rag", True, r"rag has startup = \"active\", and \[boot\]"),
    ],
)
def test_two_defaults_are_named(models: str, setups: str, restore_last: bool, named: str) -> None:
    with pytest.raises(WrongUsage, match=named) as refusal:
        only_default(_defaults(models, setups, restore_last))
    assert refusal.value.hint.startswith(f"mmd default {named.split(maxsplit=1)[0]}")


def _defaults(models: str, setups: str, restore_last: bool) -> tuple[Default, ...]:
    active = dict.fromkeys(models.split(), Startup.ACTIVE)
    of_setups = dict.fromkeys(setups.split(), Startup.ACTIVE)
    return defaults({**active, "z": Startup.SLEEP}, {**of_setups, "x": Startup.DISABLED}, restore_last=restore_last)
