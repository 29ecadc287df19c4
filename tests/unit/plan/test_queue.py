"""The scheduling policy: no starvation, no thrashing, and an order that can be explained."""

from __future__ import annotations

import random

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from mmd.plan.queue import (
    Backoff,
    Grant,
    QueueLimits,
    Resident,
    StartSwap,
    WaitingModel,
    WaitUntil,
    decide,
    expected_seconds,
    retry_after_seconds,
)
from tests.unit.plan.simulated_queue import Asked, Simulation

MODELS = ("a", "b", "c")
SWAP_SECONDS = {"a": 0.5, "b": 3.0, "c": 0.0}  # nothing is known of what c takes
LONGEST_ANSWER_SECONDS = 8.0
ROUNDING_SECONDS = 1e-6  # of sums and differences of floats
BOUNDS = QueueLimits(max_wait_seconds=20.0, min_residency_seconds=2.0)


def latest_begins(lines: list[WaitingModel]) -> list[float]:
    """Return when each swap must begin at the latest, so that every request is served in time."""
    turns = sorted(lines, key=lambda line: (not line.interactive, line.since))
    return [
        line.since + BOUNDS.max_wait_seconds - sum(before.swap_seconds for before in turns[: turn + 1])
        for turn, line in enumerate(turns)
    ]


class WaitingRoom(RuleBasedStateMachine):
    """Whatever comes and goes."""

    waiters = Bundle("waiters")

    def __init__(self) -> None:
        super().__init__()
        self.room = Simulation(SWAP_SECONDS, BOUNDS)
        self.asked: list[Asked] = []
        self.interactive_at: list[float] = []

    @rule(target=waiters, model=st.sampled_from(MODELS), seconds=st.floats(0, LONGEST_ANSWER_SECONDS))
    def ask(self, model: str, seconds: float) -> Asked:
        asked = self.room.ask(model, seconds)
        self.asked.append(asked)
        return asked

    @rule(model=st.sampled_from(MODELS))
    def ask_by_hand(self, model: str) -> None:
        self.interactive_at.append(self.room.now)
        self.asked.append(self.room.activate(model))

    @rule(asked=consumes(waiters))
    def leave(self, asked: Asked) -> None:
        if asked.let_in is None:
            self.room.leave(asked)
            self.asked.remove(asked)

    @rule(seconds=st.floats(0, 30))
    def pass_time(self, seconds: float) -> None:
        self.room.run_until(self.room.now + seconds)

    @invariant()
    def gpu_lies_idle_on_purpose_only(self) -> None:
        """For the next request of the client that has just been answered, and not for long."""
        room = self.room
        if room.waiting and room.swapping is None and not room.answering:
            assert room.holder is not None
            assert room.holder.idle_since is not None
            assert room.now - room.holder.idle_since <= 2.0 + ROUNDING_SECONDS

    @invariant()
    def swaps_have_a_reason(self) -> None:
        """Before its minimum residency a model is unloaded only if it has no requests, if another request has waited
        too long, or if a person asks for another model.
        """
        for swap in self.room.swaps:
            had_it = swap.previous
            if had_it is None or swap.at - had_it.since >= BOUNDS.min_residency_seconds - ROUNDING_SECONDS:
                continue
            assert had_it.idle_since is not None  # the last answer has ended, always
            wanted = next(line for line in swap.lines if line.model_id == swap.model)
            at = swap.at + ROUNDING_SECONDS
            assert (
                wanted.interactive
                or at >= min(latest_begins(swap.lines))
                or at - had_it.idle_since >= min(2.0, wanted.swap_seconds / 2)
            )

    def teardown(self) -> None:
        self.room.run_out()
        assert not self.room.waiting
        turn_seconds = max(SWAP_SECONDS.values()) + LONGEST_ANSWER_SECONDS
        for asked in self.asked:
            assert asked.let_in is not None
            # Once its time has come, one turn of every model at most, and those that people asked for since.
            interactive = sum(at >= asked.came for at in self.interactive_at)
            waited = asked.let_in - asked.came
            assert waited <= BOUNDS.max_wait_seconds + (len(MODELS) + interactive) * turn_seconds


TestWaitingRoom = WaitingRoom.TestCase


def mixed_trace(requests: int, *, seconds_between: float, seed: int) -> list[tuple[float, str]]:
    draw = random.Random(seed)
    at, trace = 0.0, []
    for _ in range(requests):
        at += draw.expovariate(1 / seconds_between)
        trace.append((at, draw.choice(MODELS)))
    return trace


def swaps_first_come_first_served(trace: list[tuple[float, str]]) -> int:
    return sum(before != after for (_, before), (_, after) in zip([(0.0, ""), *trace], trace, strict=False))


@pytest.mark.parametrize("seconds_between", [0.02, 0.1, 0.5])
@pytest.mark.parametrize("seed", range(5))
def test_mixed_trace_needs_at_most_half_the_swaps(seconds_between: float, seed: int) -> None:
    """Requests arrive faster than models can be swapped; if they arrive slower, every swap is needed."""
    trace = mixed_trace(300, seconds_between=seconds_between, seed=seed)
    bounds = QueueLimits(max_wait_seconds=30.0, min_residency_seconds=2.0)
    room = Simulation(dict.fromkeys(MODELS, 1.0), bounds)
    for at, model in trace:
        room.run_until(at)
        room.ask(model, 0.3)
    room.run_out()
    assert len(room.served) == 300
    assert len(room.swaps) <= swaps_first_come_first_served(trace) / 2
    assert max(one.let_in - one.came for one in room.served if one.let_in is not None) <= bounds.max_wait_seconds


def held(*, since: float = 0.0, idle_since: float | None = None) -> Resident:
    return Resident("a", since, idle_since, swap_seconds=4.0)


LONG_AGO = -1000.0


def test_first_swap_goes_to_the_oldest_request() -> None:
    lines = [WaitingModel("b", since=2.0), WaitingModel("c", since=1.0)]
    assert decide(lines, None, 3.0, BOUNDS) == StartSwap("c")


def test_request_for_the_resident_model_goes_ahead_in_its_slice() -> None:
    lines = [WaitingModel("b", since=0.5, swap_seconds=3.0), WaitingModel("a", since=0.6)]
    assert decide(lines, held(), 1.0, BOUNDS) == Grant("a")
    assert decide(lines, held(), 6.9, BOUNDS) == Grant("a")  # the slice is what there and back take: 3 + 4 s
    assert decide(lines, held(), 7.0, BOUNDS) == StartSwap("b")


def test_slice_is_two_seconds_where_nothing_is_known() -> None:
    resident = Resident("a", since=0.0, idle_since=None)
    assert decide([WaitingModel("b", since=0.5)], resident, 1.0, BOUNDS) == WaitUntil(2.0)
    assert decide([WaitingModel("b", since=0.5)], resident, 2.0, BOUNDS) == StartSwap("b")


def test_long_resident_model_is_unloaded_for_another_request() -> None:
    assert decide([WaitingModel("b", since=0.0)], held(since=LONG_AGO), 0.0, BOUNDS) == StartSwap("b")


def test_idle_model_stays_for_half_a_swap_at_most() -> None:
    resident = held(idle_since=1.0)
    assert decide([WaitingModel("b", since=1.1, swap_seconds=3.0)], resident, 1.2, BOUNDS) == WaitUntil(2.5)
    assert decide([WaitingModel("b", since=1.1, swap_seconds=10.0)], resident, 1.2, BOUNDS) == WaitUntil(3.0)
    assert decide([WaitingModel("b", since=1.1)], resident, 1.2, BOUNDS) == StartSwap("b")


def test_long_wait_ends_the_slice() -> None:
    lines = [WaitingModel("b", since=LONG_AGO, swap_seconds=3.0), WaitingModel("a", since=LONG_AGO + 1)]
    assert decide(lines, held(), 0.1, BOUNDS) == StartSwap("b")


def test_its_swap_is_begun_so_early_that_it_is_over_in_time() -> None:
    resident = Resident("a", since=0.0, idle_since=None, swap_seconds=100.0)
    assert decide([WaitingModel("b", since=0.0, swap_seconds=5.0)], resident, 14.9, BOUNDS) == WaitUntil(15.0)
    assert decide([WaitingModel("b", since=0.0, swap_seconds=5.0)], resident, 15.0, BOUNDS) == StartSwap("b")


def test_swaps_that_come_before_it_are_begun_so_early_too() -> None:
    """c has to wait for the swap to b as well; b alone could have waited until 15."""
    resident = Resident("a", since=0.0, idle_since=None, swap_seconds=100.0)
    lines = [WaitingModel("b", since=0.0, swap_seconds=5.0), WaitingModel("c", since=0.5, swap_seconds=6.0)]
    assert decide(lines, resident, 9.4, BOUNDS) == WaitUntil(9.5)
    assert decide(lines, resident, 9.5, BOUNDS) == StartSwap("b")


def test_oldest_request_is_let_in_also_when_the_slice_is_over() -> None:
    lines = [WaitingModel("b", since=2.0), WaitingModel("a", since=1.0)]
    assert decide(lines, held(since=LONG_AGO), 3.0, BOUNDS) == Grant("a")


def test_by_hand_goes_before_all_others() -> None:
    lines = [WaitingModel("b", since=1.0), WaitingModel("c", since=2.0, interactive=True)]
    assert decide(lines, held(since=1.9), 2.0, BOUNDS) == StartSwap("c")


def test_expected_wait_is_that_of_the_swaps_before() -> None:
    lines = [WaitingModel("b", since=1.0, swap_seconds=4.0), WaitingModel("c", since=2.0, swap_seconds=10.0)]
    assert expected_seconds(lines, "b") == 4.0
    assert expected_seconds(lines, "c") == 14.0
    assert expected_seconds(lines, "c", under_way_seconds=3.0) == 11.0
    assert expected_seconds(lines, "c", under_way_seconds=9.0) == 10.0  # late, but it cannot take less than nothing
    assert expected_seconds([*lines, WaitingModel("a", since=3.0)], "a") is None


def test_retry_after_is_between_a_second_and_five_minutes() -> None:
    assert [retry_after_seconds(seconds) for seconds in (0.0, 4.2, 4000.0, None)] == [1, 5, 300, 30]


def test_cool_down_doubles_from_ten_seconds_to_five_minutes() -> None:
    cool_down, waits = None, []
    for _ in range(8):
        cool_down = Backoff.after_failure(cool_down, 100.0)
        waits.append(cool_down.until - 100.0)
    assert waits == [10, 20, 40, 80, 160, 300, 300, 300]
