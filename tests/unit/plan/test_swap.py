"""The plan of a swap: every branch as a table, and any history as a property."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from mmd.plan.residency import Pair, Residency, UnitState, residency
from mmd.plan.swap import AwaitStart, NoOp, Start, decide, gpu_holder, should_restore
from tests.unit.plan.systemd_model import MODELS, SystemdModel

DEAD = UnitState()
KEPT = UnitState(loaded=True)  # dead, and loaded because another unit names it
RUNS = UnitState("active", "running", loaded=True)
LOADS = UnitState("activating", "start-post", loaded=True)
WAITS_TO_RESTART = UnitState("activating", "auto-restart", loaded=True)
FAILED = UnitState("failed", "failed", loaded=True)
ENDS = UnitState("deactivating", "stop-sigterm", loaded=True)
HELD = UnitState("active", "exited", loaded=True)
TAKES = UnitState("activating", "start", loaded=True)
LEAVES = UnitState("deactivating", "stop", loaded=True)

RESIDENT = Pair(RUNS, HELD)
LOADING = Pair(LOADS, HELD)
ASLEEP = Pair(RUNS, KEPT)


def begin(wanted: str, pairs: dict[str, Pair], *, same_launch: bool = False) -> Start:
    step = decide(wanted, pairs, same_launch=same_launch)
    assert isinstance(step, Start), step
    return step


# --- the table


def test_first_activation_names_no_other_model() -> None:
    assert begin("a", {}) == Start(
        (), None, has_engine=False, has_token=False, forget=False, wakes=False, why="not loaded"
    )


def test_resident_model_is_already_there() -> None:
    assert decide("a", {"a": RESIDENT}, same_launch=True) == NoOp("it is resident")


def test_resident_model_with_another_launch_is_restarted() -> None:
    step = begin("a", {"a": RESIDENT})
    assert (step.forget, step.has_engine, step.has_token, step.wakes) == (True, False, False, False)
    assert step.why == "resident with another command line"
    assert step.previous is None, "it is not its own predecessor"


@pytest.mark.parametrize(
    ("pair", "wakes"),
    [
        (LOADING, False),
        (Pair(DEAD, replace(KEPT, job="start")), False),
        (Pair(replace(KEPT, job="start"), TAKES), False),
        (Pair(RUNS, TAKES), True),
    ],
    ids=["loads", "waits_for_the_gpu", "token_is_being_taken", "wakes"],
)
def test_start_under_way_is_joined(pair: Pair, wakes: bool) -> None:
    assert decide("a", {"a": pair}, same_launch=True) == AwaitStart(wakes, "its start is in progress")


def test_running_start_with_another_launch_is_restarted() -> None:
    step = begin("a", {"a": LOADING})
    assert step.forget
    assert step.why.startswith("starting with another command line")


def test_engine_that_waits_to_be_restarted_is_begun_at_once() -> None:
    """Its restart may be minutes away, or be skipped without the token: a caller that joins it could wait for ever."""
    for token in (KEPT, HELD):
        step = begin("a", {"a": Pair(WAITS_TO_RESTART, token)}, same_launch=True)
        assert (step.has_engine, step.has_token, step.forget, step.wakes) == (True, True, False, False)


def test_loading_model_that_is_being_stopped_is_restarted() -> None:
    assert begin("a", {"a": Pair(LOADS, LEAVES)}, same_launch=True).has_token


def test_sleeping_model_is_woken() -> None:
    step = begin("a", {"a": ASLEEP, "b": RESIDENT}, same_launch=True)
    assert step == Start(("b",), "b", has_engine=True, has_token=True, forget=False, wakes=True, why="asleep in RAM")


def test_sleeping_model_whose_token_is_forgotten_gets_a_new_one() -> None:
    step = begin("a", {"a": Pair(RUNS, DEAD), "b": RESIDENT}, same_launch=True)
    assert (step.has_engine, step.has_token, step.forget, step.wakes) == (True, False, False, True)
    assert step.rivals == ("b",)


def test_sleeping_model_with_another_launch_starts_cold() -> None:
    step = begin("a", {"a": ASLEEP}, same_launch=False)
    assert (step.forget, step.wakes) == (True, False)
    assert step.why == "asleep with another command line"


def test_failed_model_with_an_unloaded_engine_is_made_again() -> None:
    """Its unit is there to tell how it failed, and goes as soon as the failure is reset: nothing to use again."""
    step = begin("a", {"a": Pair(FAILED, DEAD)}, same_launch=True)
    assert (step.has_engine, step.has_token, step.forget) == (False, False, False)
    assert step.why == "failed before, starting again"


def test_failed_model_with_a_required_token_is_reused() -> None:
    step = begin("a", {"a": Pair(FAILED, KEPT), "b": RESIDENT}, same_launch=True)
    assert (step.has_engine, step.has_token, step.forget) == (True, True, False)


def test_failed_model_with_another_launch_is_forgotten_first() -> None:
    assert begin("a", {"a": Pair(FAILED, KEPT)}).forget


def test_model_on_its_way_out_is_started_again() -> None:
    step = begin("a", {"a": Pair(ENDS, LEAVES)}, same_launch=True)
    assert step.why == "stopping, starting again"
    assert (step.has_engine, step.has_token, step.wakes) == (True, True, False)


def test_model_that_falls_asleep_is_woken_again() -> None:
    """Its engine runs on, so to wait for the engine's job would be to wait for nothing."""
    step = begin("a", {"a": Pair(RUNS, LEAVES)}, same_launch=True)
    assert (step.has_engine, step.has_token, step.wakes) == (True, True, True)


def test_token_left_without_its_engine_is_forgotten() -> None:
    """Its BindsTo= names a unit that is gone; StartUnit on it would fail."""
    step = begin("a", {"a": Pair(DEAD, KEPT)}, same_launch=False)
    assert (step.has_token, step.forget) == (False, True)


def test_rivals_are_all_loaded_tokens_and_no_others() -> None:
    pairs = {
        "loaded": Pair(DEAD, KEPT),
        "named-only": Pair(DEAD, DEAD),
        "failed": Pair(FAILED, DEAD),
        "resident": RESIDENT,
        "me": Pair(DEAD, KEPT),
        "asleep": ASLEEP,
    }
    assert begin("me", pairs).rivals == ("asleep", "loaded", "resident")


def test_previous_is_who_holds_the_gpu() -> None:
    assert begin("a", {"b": ASLEEP, "c": RESIDENT}).previous == "c"
    assert begin("a", {"b": ASLEEP}).previous is None


def test_previous_that_still_loads_counts() -> None:
    assert begin("a", {"b": LOADING}).previous == "b"


# --- who holds the GPU, and who gets it back


def test_holder_needs_a_token() -> None:
    assert gpu_holder({}) is None
    assert gpu_holder({"a": ASLEEP, "b": Pair(FAILED, DEAD)}) is None


def test_holder_is_the_starting_model_not_the_stopping() -> None:
    pairs = {"a": Pair(RUNS, replace(HELD, job="stop")), "b": Pair(DEAD, replace(KEPT, job="start"))}
    assert gpu_holder(pairs) == "b"
    assert gpu_holder(pairs, other_than="b") is None


def test_previous_comes_back_to_a_free_gpu() -> None:
    assert should_restore("a", "b", {"a": Pair(DEAD, KEPT), "b": Pair(FAILED, KEPT)})


def test_no_restore_without_a_previous_model() -> None:
    assert not should_restore(None, "b", {"b": Pair(FAILED, KEPT)})


@pytest.mark.parametrize(
    "newer", [RESIDENT, LOADING, Pair(DEAD, replace(KEPT, job="start"))], ids=["resident", "loading", "queued"]
)
def test_previous_is_not_restored_over_a_newer_model(newer: Pair) -> None:
    assert not should_restore("a", "b", {"a": Pair(DEAD, KEPT), "b": Pair(FAILED, KEPT), "c": newer})


@pytest.mark.parametrize(
    "again", [RESIDENT, LOADING, Pair(DEAD, replace(KEPT, job="start"))], ids=["resident", "loading", "queued"]
)
def test_previous_does_not_come_back_over_a_second_try(again: Pair) -> None:
    """A client that retries at once was told that "a was asked for in between", which was not true."""
    assert not should_restore("a", "b", {"a": Pair(DEAD, KEPT), "b": again})


def test_previous_comes_back_over_systemds_own_restart() -> None:
    assert should_restore("a", "b", {"a": Pair(DEAD, KEPT), "b": Pair(WAITS_TO_RESTART, HELD)})


# --- any history


class Histories(RuleBasedStateMachine):
    """Activations, ends and crashes in any order, against a model of systemd that carries the decisions out."""

    def __init__(self) -> None:
        super().__init__()
        self.systemd = SystemdModel()

    @initialize(sleepers=st.frozensets(st.sampled_from(MODELS)))
    def some_can_sleep(self, sleepers: frozenset[str]) -> None:
        self.systemd.sleepers = sleepers

    @rule(wanted=st.sampled_from(MODELS), launch=st.integers(0, 1))
    def activate(self, wanted: str, launch: int) -> None:
        if self.systemd.pairs().get(wanted, Pair()).waits_to_restart:
            self.systemd.stop_engine(wanted)  # control does so first: systemd would not start it before its time
        pairs = self.systemd.pairs()
        step = decide(wanted, pairs, same_launch=self.systemd.launch_of(wanted) == launch)
        match step:
            case NoOp():
                assert self.systemd.answers(wanted)
            case AwaitStart():
                assert self.systemd.will_answer(wanted)
            case Start():
                loaded = {name for name in MODELS if name != wanted and self.systemd.token(name).loaded}
                assert set(step.rivals) == loaded
                assert wanted not in step.rivals
                assert step.previous == gpu_holder(pairs, other_than=wanted)
                self.systemd.carry_out(wanted, step, launch)
                self.systemd.collect_garbage()
                assert self.systemd.launch_of(wanted) == launch
                assert gpu_holder(self.systemd.pairs()) == wanted

    @rule(failed=st.sampled_from(MODELS), previous=st.sampled_from((None, *MODELS)))
    def come_back(self, failed: str, previous: str | None) -> None:
        pairs = self.systemd.pairs()
        if should_restore(previous, failed, pairs):
            others = [name for name in MODELS if name != failed and self.systemd.token_is_held(name)]
            assert not others, "somebody who came later would be evicted"
            assert not self.systemd.answers(failed) and not self.systemd.will_answer(failed), "so would a second try"

    @rule(name=st.sampled_from(MODELS))
    def stop(self, name: str) -> None:
        self.systemd.stop(name)
        self.systemd.collect_garbage()

    @rule(name=st.sampled_from(MODELS))
    def release(self, name: str) -> None:
        self.systemd.release(name)
        self.systemd.collect_garbage()

    @rule(name=st.sampled_from(MODELS), restarts=st.booleans())
    def crash(self, name: str, restarts: bool) -> None:
        self.systemd.crash(name, restarts=restarts)
        self.systemd.collect_garbage()

    @precondition(lambda self: self.systemd.runnable())
    @rule(data=st.data())
    def work(self, data: st.DataObject) -> None:
        self.systemd.run(data.draw(st.sampled_from(self.systemd.runnable())))
        self.systemd.collect_garbage()

    @invariant()
    def one_holder(self) -> None:
        pairs = self.systemd.pairs()
        held = [name for name, pair in pairs.items() if pair.holds_gpu]
        assert len(held) <= 1
        assert gpu_holder(pairs) == (held[0] if held else None)

    @invariant()
    def one_awake(self) -> None:
        assert len(self.systemd.awake()) <= 1

    @invariant()
    def resident_means_it_answers(self) -> None:
        for name, pair in self.systemd.pairs().items():
            if residency(pair) is Residency.RESIDENT:
                assert self.systemd.answers(name)


TestHistories = Histories.TestCase
TestHistories.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)
