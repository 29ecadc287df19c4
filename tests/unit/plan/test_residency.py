"""Where a model is, read off what systemd says of its two units."""

from __future__ import annotations

import pytest

from mmd.plan.residency import Pair, Residency, UnitState, residency

DEAD = UnitState()
ACTIVE = UnitState("active", "running", loaded=True)
LOADING = UnitState("activating", "start-post", loaded=True)
RESTARTING = UnitState("activating", "auto-restart", loaded=True)
ENDING = UnitState("deactivating", "stop-sigterm", loaded=True)
FAILED = UnitState("failed", "failed", loaded=True)
HELD = UnitState("active", "exited", loaded=True)
TAKING = UnitState("activating", "start", loaded=True)
LEAVING = UnitState("deactivating", "stop", loaded=True)


def queued(state: UnitState, job: str) -> UnitState:
    return UnitState(state.active, state.sub, job, state.loaded)


@pytest.mark.parametrize(
    ("engine", "token", "expected"),
    [
        pytest.param(DEAD, DEAD, Residency.ABSENT, id="no_units"),
        pytest.param(DEAD, HELD, Residency.ABSENT, id="engine_gone_and_its_token_about_to_follow"),
        pytest.param(queued(DEAD, "start"), TAKING, Residency.STARTING, id="waits_for_its_token"),
        pytest.param(DEAD, queued(DEAD, "start"), Residency.STARTING, id="token_waits_for_another_to_go"),
        pytest.param(DEAD, queued(LEAVING, "start"), Residency.STARTING, id="token_goes_and_comes_again"),
        pytest.param(LOADING, HELD, Residency.STARTING, id="loads"),
        pytest.param(RESTARTING, DEAD, Residency.STARTING, id="waits_to_be_started_again"),
        pytest.param(LOADING, LEAVING, Residency.STARTING, id="loads_and_the_release_hook_is_about_to_end_it"),
        pytest.param(ACTIVE, HELD, Residency.RESIDENT, id="answers"),
        pytest.param(UnitState("reloading", "reload", loaded=True), HELD, Residency.RESIDENT, id="reloads"),
        pytest.param(queued(ACTIVE, "start"), queued(HELD, "start"), Residency.RESIDENT, id="is_asked_for_once_more"),
        pytest.param(ACTIVE, queued(HELD, "restart"), Residency.STARTING, id="its_token_restarts"),
        pytest.param(ACTIVE, DEAD, Residency.STRANDED, id="runs_without_its_token"),
        pytest.param(ACTIVE, FAILED, Residency.STRANDED, id="its_token_failed"),
        pytest.param(ACTIVE, TAKING, Residency.STARTING, id="wakes"),
        pytest.param(ACTIVE, queued(DEAD, "start"), Residency.STARTING, id="will_wake"),
        pytest.param(ACTIVE, queued(LEAVING, "start"), Residency.STOPPING, id="falls_asleep_to_be_woken_again"),
        pytest.param(ACTIVE, LEAVING, Residency.STOPPING, id="falls_asleep"),
        pytest.param(ACTIVE, queued(HELD, "stop"), Residency.STOPPING, id="will_fall_asleep"),
        pytest.param(queued(ACTIVE, "stop"), HELD, Residency.STOPPING, id="will_end"),
        pytest.param(ENDING, HELD, Residency.STOPPING, id="ends"),
        pytest.param(queued(ENDING, "start"), HELD, Residency.STOPPING, id="ends_to_be_started_again"),
        pytest.param(queued(LOADING, "stop"), LEAVING, Residency.STOPPING, id="is_ended_while_it_loads"),
        pytest.param(FAILED, DEAD, Residency.FAILED, id="failed"),
        pytest.param(FAILED, LEAVING, Residency.FAILED, id="failed_and_its_token_follows"),
        pytest.param(queued(FAILED, "start"), HELD, Residency.STARTING, id="failed_and_is_tried_again"),
    ],
)
def test_residency_of_a_pair(engine: UnitState, token: UnitState, expected: Residency) -> None:
    assert residency(Pair(engine, token)) is expected


@pytest.mark.parametrize("engine", [ACTIVE, LOADING], ids=["active", "loading"])
def test_residency_of_an_engine_told_to_restart_is_not_resident(engine: UnitState) -> None:
    """`systemctl --user restart mmd-model@a`: for a moment it is active still, and about to go."""
    assert residency(Pair(queued(engine, "restart"), HELD)) is not Residency.RESIDENT


@pytest.mark.parametrize(
    ("token", "expected"),
    [
        (DEAD, False),
        (FAILED, False),
        (LEAVING, False),
        (HELD, True),
        (TAKING, True),
        (queued(HELD, "stop"), False),
        (queued(TAKING, "stop"), False),
        (queued(DEAD, "start"), True),
        (queued(LEAVING, "start"), True),
        (queued(HELD, "restart"), True),
    ],
)
def test_token_held_or_about_to_be(token: UnitState, expected: bool) -> None:
    assert Pair(LOADING, token).holds_gpu is expected


def test_token_that_outlived_its_engine_holds_nothing() -> None:
    """It stays when the engine has failed for good; that must not block a restore or a wait."""
    for engine in (DEAD, FAILED):
        assert not Pair(engine, HELD).holds_gpu
        assert Pair(queued(engine, "start"), HELD).holds_gpu


def test_engine_sleeps_only_with_the_proof_of_its_release_hook() -> None:
    """A release hook that was killed left two models awake, and one of them was shown as asleep."""
    assert residency(Pair(ACTIVE, DEAD, kept={"ram": 0})) is Residency.ASLEEP
    assert residency(Pair(ACTIVE, HELD, kept={"ram": 0})) is Residency.RESIDENT
