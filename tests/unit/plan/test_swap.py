"""The plan of a swap: what happens to each wanted model, and which units leave."""

from __future__ import annotations

import pytest

from mmd.plan.placement.occupancy import Occupancy
from mmd.plan.placement.place import Occupant, Placement
from mmd.plan.residency import Pair, UnitState
from mmd.plan.swap import Action, action, leavers, taken_again, waits_for, why

G0, G1 = "GPU-00000000", "GPU-11111111"
DOWN = UnitState()
UP = UnitState("active", "running", loaded=True)
LOADS = UnitState("activating", "start-post", loaded=True)
RESTARTS = UnitState("activating", "auto-restart", loaded=True)
ENDS = UnitState("deactivating", "stop-sigterm", loaded=True)
FAILED = UnitState("failed", "failed", loaded=True)
QUEUED = UnitState("inactive", "dead", "start", loaded=True)
HELD = UnitState("active", "exited", loaded=True)
WAITS = UnitState("activating", "start", loaded=True)
LEAVES = UnitState("deactivating", "stop-post", loaded=True)
NAMED = UnitState(loaded=True)  # dead, and loaded because a live token names it: residency = "one"
KEPT = {G0: 1200}


@pytest.mark.parametrize(
    ("pair", "same", "other"),
    [
        pytest.param(Pair(), Action.START, Action.START, id="absent"),
        pytest.param(Pair(UP, HELD), Action.NOTHING, Action.REPLACE, id="resident"),
        pytest.param(Pair(LOADS, HELD), Action.AWAIT, Action.REPLACE, id="loading"),
        pytest.param(Pair(QUEUED, WAITS), Action.AWAIT, Action.REPLACE, id="at_its_gate"),
        pytest.param(Pair(UP, WAITS), Action.AWAIT, Action.REPLACE, id="waking"),
        pytest.param(Pair(UP, DOWN, kept=KEPT), Action.WAKE, Action.REPLACE, id="asleep"),
        pytest.param(Pair(UP, NAMED, kept=KEPT), Action.WAKE, Action.REPLACE, id="asleep_and_named"),
        pytest.param(Pair(UP, DOWN), Action.REPLACE, Action.REPLACE, id="stranded"),
        pytest.param(Pair(UP, LEAVES), Action.LOOK_AGAIN, Action.LOOK_AGAIN, id="falling_asleep"),
        pytest.param(Pair(ENDS, LEAVES), Action.LOOK_AGAIN, Action.LOOK_AGAIN, id="ending"),
        pytest.param(Pair(RESTARTS, HELD), Action.REPLACE, Action.REPLACE, id="waits_to_restart"),
        pytest.param(Pair(FAILED, HELD), Action.REPLACE, Action.REPLACE, id="dead"),
        pytest.param(Pair(FAILED, DOWN), Action.REPLACE, Action.REPLACE, id="failed"),
        pytest.param(Pair(DOWN, NAMED), Action.REPLACE, Action.REPLACE, id="named"),
    ],
)
def test_action_for_a_pair(pair: Pair, same: Action, other: Action) -> None:
    assert (action(pair, same_launch=True), action(pair, same_launch=False)) == (same, other)


def test_why_is_said_for_each_action() -> None:
    assert why(Pair(), Action.START) == "not loaded"
    assert why(Pair(UP, DOWN, kept=KEPT), Action.WAKE) == "asleep in RAM"
    assert why(Pair(UP, HELD), Action.NOTHING) == "it is resident"
    assert why(Pair(FAILED, DOWN), Action.REPLACE) == "failed before, starting again"


def occupied(*occupants: Occupant, leaving: dict[str, dict[str, int]] | None = None) -> Occupancy:
    return Occupancy(occupants, leaving or {}, ())


def test_leavers_and_the_units_that_their_swap_stops() -> None:
    """An engine that could sleep ends only where what it keeps is needed: its unit is named, too."""
    here = occupied(
        Occupant("stops", {G0: 1}),
        Occupant("sleeps", {G0: 1}, {G0: 1}),
        Occupant("ends", {G0: 1}, {G0: 1}),
        Occupant("asleep", {G0: 1}, {G0: 1}, is_asleep=True),
        Occupant("dead", {G0: 1}, is_dead=True),
    )
    left = leavers(Placement({}, sleep=("sleeps",), end=("asleep", "dead", "ends", "stops")), here)
    assert left.evicted == ("ends", "sleeps", "stops"), "restored if the activation fails"
    assert left.tokens == ("dead", "ends", "sleeps", "stops")
    assert left.engines == ("asleep", "ends")


def test_gate_waits_for_leavers_of_its_own_devices() -> None:
    here = occupied(Occupant("a", {G0: 1}), Occupant("b", {G1: 1}), leaving={"c": {G0: 1}, "d": {G1: 1}})
    left = leavers(Placement({}, sleep=(), end=("a", "b")), here)
    assert waits_for({G0: 1}, left, here) == {"a", "c"}


@pytest.mark.parametrize(
    ("pair", "is_taken"),
    [(Pair(UP, HELD), True), (Pair(LOADS, HELD), True), (Pair(RESTARTS, HELD), False), (Pair(FAILED, HELD), False)],
    ids=["resident", "loading", "waits_to_restart", "failed"],
)
def test_failed_model_that_another_activation_started_again(pair: Pair, is_taken: bool) -> None:
    assert taken_again("a", {"a": pair}) is is_taken
