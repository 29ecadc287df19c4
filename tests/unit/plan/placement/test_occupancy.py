"""What holds the devices, for each state that the units of a model can be in."""

from __future__ import annotations

import pytest

from mmd.plan.lease import LeasePair
from mmd.plan.placement.occupancy import Use, held, occupancy
from mmd.plan.placement.place import Device
from mmd.plan.residency import Pair, UnitState
from mmd.plan.share import Holding

G0 = "GPU-00000000"
DEVICES = (Device(G0, 24000), Device("ram", 32000))
USES, KEEPS = {G0: 14000}, {G0: 1200}
SLEEPS = Holding(USES, KEEPS)
STOPS = Holding(USES)

DOWN = UnitState()
UP = UnitState("active", "running", loaded=True)
LOADS = UnitState("activating", "start-post", loaded=True)
ENDS = UnitState("deactivating", "stop-sigterm", loaded=True)
FAILED = UnitState("failed", "failed", loaded=True)
QUEUED = UnitState("inactive", "dead", "start", loaded=True)
HELD = UnitState("active", "exited", loaded=True)
WAITS = UnitState("activating", "start", loaded=True)
LEAVES = UnitState("deactivating", "stop-post", loaded=True)
WILL_LEAVE = UnitState("active", "exited", "stop", loaded=True)


def read(pair: Pair) -> tuple[list[str], bool, dict[str, dict[str, int]], tuple[str, ...]]:
    """Return the occupants and whether the first one sleeps, what leaves, and what is stranded."""
    found = occupancy({"a": pair}, {}, DEVICES, {})
    is_asleep = bool(found.occupants) and found.occupants[0].is_asleep
    leaving = {name: dict(share) for name, share in found.leaving.items()}
    return [one.model_id for one in found.occupants], is_asleep, leaving, found.stranded


@pytest.mark.parametrize(
    ("pair", "expected"),
    [
        pytest.param(Pair(), ([], False, {}, ()), id="absent"),
        pytest.param(Pair(UP, HELD, STOPS), (["a"], False, {}, ()), id="resident"),
        pytest.param(Pair(QUEUED, QUEUED, STOPS), (["a"], False, {}, ()), id="before_its_gate_has_run"),
        pytest.param(Pair(QUEUED, WAITS, STOPS), (["a"], False, {}, ()), id="at_its_gate"),
        pytest.param(Pair(LOADS, HELD, STOPS), (["a"], False, {}, ()), id="loading"),
        pytest.param(Pair(UP, LEAVES, STOPS), ([], False, {"a": USES}, ()), id="leaving"),
        pytest.param(Pair(ENDS, WILL_LEAVE, STOPS), ([], False, {"a": USES}, ()), id="ending"),
        pytest.param(Pair(UP, LEAVES, SLEEPS), (["a"], True, {"a": USES}, ()), id="falling_asleep"),
        pytest.param(Pair(UP, DOWN, SLEEPS, kept=KEEPS), (["a"], True, {}, ()), id="asleep"),
        pytest.param(Pair(ENDS, DOWN, SLEEPS, kept=KEEPS), ([], False, {"a": KEEPS}, ()), id="ending_asleep"),
        pytest.param(Pair(UP, DOWN, SLEEPS), ([], False, {}, ("a",)), id="stranded"),
        pytest.param(Pair(FAILED, DOWN, STOPS), ([], False, {}, ()), id="failed"),
    ],
)
def test_occupancy_of_a_pair(pair: Pair, expected: object) -> None:
    assert read(pair) == expected


def test_model_whose_engine_failed_is_dead_and_leaves_first() -> None:
    (dead,) = occupancy({"a": Pair(FAILED, HELD, STOPS)}, {}, DEVICES, {}).occupants
    assert dead.is_dead


def test_sleeper_holds_what_its_hook_has_proved() -> None:
    """It may keep more than was planned."""
    (asleep,) = occupancy({"a": Pair(UP, DOWN, SLEEPS, kept={G0: 1500})}, {}, DEVICES, {}).occupants
    assert asleep.keeps == {G0: 1500}


def test_units_of_mmd_0_1_hold_the_whole_machine() -> None:
    (old,) = occupancy({"a": Pair(UP, HELD)}, {}, DEVICES, {}).occupants
    assert old.uses == {G0: 24000, "ram": 32000}


def test_use_of_a_model_decides_how_important_it_is() -> None:
    use = Use(last_used=7.0, in_use=True, pinned=True)
    (one,) = occupancy({"a": Pair(UP, HELD, STOPS)}, {}, DEVICES, {"a": use}).occupants
    assert (one.last_used, one.in_use, one.pinned) == (7.0, True, True)


def test_lease_that_ends_still_holds_its_memory() -> None:
    held_lease, ending = LeasePair(UP, HELD, {G0: 8000}), LeasePair(ENDS, HELD, {G0: 4000})
    found = occupancy({}, {"game": held_lease, "job": ending}, DEVICES, {})
    assert [(one.model_id, one.is_lease) for one in found.occupants] == [("lease@game", True)]
    assert found.leaving == {"lease@job": {G0: 4000}}


def test_sum_of_what_is_held() -> None:
    pairs = {"a": Pair(UP, HELD, SLEEPS), "b": Pair(UP, DOWN, SLEEPS, kept=KEEPS)}
    assert held(pairs, {"game": LeasePair(UP, HELD, {G0: 8000})}) == {G0: 14000 + 1200 + 8000}
