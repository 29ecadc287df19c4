"""The scheduling policy: bounded waits, no needless swap, nothing over capacity, and an order that can be explained."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from mmd.gateway.http.limits import Limits
from mmd.gateway.schedule.state import SchedulerState
from mmd.plan import queue
from mmd.plan.placement.place import Shape
from mmd.plan.queue import (
    Backoff,
    Claims,
    Decisions,
    Forecast,
    NoRoom,
    QueueLimits,
    QueueView,
    ResidentModel,
    Step,
    Turn,
    WaitingModel,
    decide,
    retry_after_seconds,
)
from tests.unit.plan.simulated_queue import (
    SCENARIOS,
    Asked,
    Machine,
    OverCommitted,
    Scenario,
    SimulatedModel,
    Simulation,
    gpus,
    mixed_trace,
    replay,
    whole,
)

MODELS = ("a", "b", "c")
LONGEST_ANSWER_SECONDS = 8.0
ROUNDING_SECONDS = 1e-6  # of sums and differences of floats
LIMITS = Limits(max_wait_seconds=20.0, min_residency_seconds=2.0, drain_seconds=math.inf)
BOUNDS = QueueLimits(max_wait_seconds=20.0, min_residency_seconds=2.0)


class OneGpu(RuleBasedStateMachine):
    """Three models that cannot share a GPU, and requests for them."""

    waiters = Bundle("waiters")

    def __init__(self) -> None:
        super().__init__()
        # Nothing is known of what c takes.
        models = {
            "a": whole(10, 0.5),
            "b": whole(10, 3.0),
            "c": SimulatedModel(Shape(1, 10), 0.0, known=False),
        }
        self.room = Simulation(Machine(gpus(16), models), LIMITS)
        self.asked: list[Asked] = []
        self.interactive_at: list[float] = []

    @rule(target=waiters, model=st.sampled_from(MODELS), seconds=st.floats(0, LONGEST_ANSWER_SECONDS))
    def ask(self, model: str, seconds: float) -> Asked:
        asked = self.room.ask(model, seconds)
        self.asked.append(asked)
        return asked

    @rule(model=st.sampled_from(MODELS))
    def activate(self, model: str) -> None:
        self.interactive_at.append(self.room.now)
        self.asked.append(self.room.ask(model, 0.0, interactive=True))

    @rule(asked=consumes(waiters))
    def leave(self, asked: Asked) -> None:
        if asked.let_in is None:
            self.room.leave(asked)
            self.asked.remove(asked)

    @rule(seconds=st.floats(0, 30))
    def pass_time(self, seconds: float) -> None:
        self.room.run_until(self.room.now + seconds)

    @invariant()
    def swaps_have_a_reason(self) -> None:
        """Before its minimum residency a model is unloaded only if it has no requests, if another request has waited
        too long, or if a person asks for another model.
        """
        for swap in self.room.swaps:
            for leaver in swap.leavers:
                if swap.at - swap.since[leaver] >= BOUNDS.min_residency_seconds - ROUNDING_SECONDS:
                    continue
                idle_since = swap.idle_since[leaver]
                assert idle_since is not None  # the last response has ended, always
                swap_seconds = {name: self.room.machine.expected_seconds(name) or 0.0 for name in MODELS}
                latest = min(
                    since + BOUNDS.max_wait_seconds - sum(swap_seconds.values()) for since, _ in swap.lines.values()
                )
                assert (
                    any(interactive for _, interactive in swap.lines.values())
                    or swap.at + ROUNDING_SECONDS >= latest
                    or swap.at - idle_since + ROUNDING_SECONDS >= min(2.0, swap_seconds[swap.model] / 2)
                )

    def teardown(self) -> None:
        self.room.run_out()
        assert not self.room.waiting
        turn_seconds = 3.0 + LONGEST_ANSWER_SECONDS
        for asked in self.asked:
            assert asked.let_in is not None
            # Once its time has come, one turn of every model at most, and those that people asked for since.
            interactive = sum(at >= asked.came for at in self.interactive_at)
            assert asked.let_in - asked.came <= BOUNDS.max_wait_seconds + (len(MODELS) + interactive) * turn_seconds


TestOneGpu = OneGpu.TestCase


# -- simulated machines


def limits() -> Limits:
    return Limits(max_wait_seconds=60, min_residency_seconds=10, drain_seconds=math.inf)


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_what_fits_stays_and_waits_become_shorter(scenario: Scenario, seed: int) -> None:
    trace = mixed_trace(scenario.weights, rate=scenario.rate, seconds=1800, seed=seed)
    one = replay(scenario.machine(one_at_a_time=True), trace, limits())
    many = replay(scenario.machine(), trace, limits())
    assert many.answered == one.answered == len(trace)
    assert many.mean_seconds < one.mean_seconds
    swap_seconds = [model.swap_seconds for model in scenario.models.values()]
    assert many.longest_seconds <= 60 + max(swap_seconds)


def test_chat_and_embedder_beside_each_other_never_swap() -> None:
    machine = SCENARIOS[0].machine()
    trace = [(second * 1.0, ("chat", "embed")[second % 2], 0.5) for second in range(1000)]
    assert replay(machine, trace, limits()).evictions == 0
    assert sorted(machine.held) == ["chat", "embed"]


def test_two_chats_on_two_gpus_never_swap() -> None:
    machine = Machine(gpus(24000, 24000), {"c1": whole(14000, 8), "c2": whole(14000, 8)})
    trace = [(second * 1.0, ("c1", "c2")[second % 2], 0.5) for second in range(1000)]
    assert replay(machine, trace, limits()).evictions == 0


@pytest.mark.parametrize("seconds_between", [0.02, 0.1, 0.5])
@pytest.mark.parametrize("seed", range(3))
def test_mixed_trace_needs_at_most_half_the_swaps(seconds_between: float, seed: int) -> None:
    """Requests arrive faster than models can be swapped; if they arrive slower, every swap is needed."""
    draw, at, trace = random.Random(seed), 0.0, []
    for _ in range(300):
        at += draw.expovariate(1 / seconds_between)
        trace.append((at, draw.choice(MODELS), 0.3))
    machine = Machine(gpus(16), {name: whole(10, 1.0) for name in MODELS})
    result = replay(machine, trace, Limits(max_wait_seconds=30, min_residency_seconds=2, drain_seconds=math.inf))
    asked = [model for _, model, _ in trace]
    first_come_first_served = sum(before != after for before, after in zip(["", *asked], asked, strict=False))
    assert result.evictions <= first_come_first_served / 2
    assert result.longest_seconds <= 30


def test_stream_of_small_models_does_not_starve_a_large_one() -> None:
    """Each small one fits on a GPU that the other GPU's swap does not need; the large one needs both."""
    models = {"big": SimulatedModel(Shape(2, 20000), 5.0), **{f"s{number}": whole(15000, 3.0) for number in range(6)}}
    machine = Machine(gpus(24000, 24000), models)
    room = Simulation(machine, limits())
    big: Asked | None = None
    for turn in range(200):
        room.run_until(turn * 1.5)
        room.ask(f"s{turn % 6}", 0.5)
        if turn == 5:
            big = room.ask("big", 1.0)
    room.run_out()
    assert big is not None
    assert big.let_in is not None
    assert big.let_in - big.came <= 60


def test_light_model_flows_past_a_drain_that_does_not_end() -> None:
    models = {"c1": whole(14000, 8), "c2": whole(14000, 8), "embed": whole(1000, 2)}
    room = Simulation(Machine(gpus(24000), models), limits())
    room.ask("c1", 10_000.0)
    room.run_until(50)
    stuck = room.ask("c2", 1.0)
    room.run_until(60)
    light = room.ask("embed", 1.0)
    room.run_until(70)
    assert light.let_in == 62
    assert stuck.let_in is None
    [turn] = room.state.status(room.now).turns
    assert (turn.model, turn.expected_seconds) == ("c2", None)
    assert [(one.model, one.requests) for one in turn.waits_for] == [("c1", 1)]
    room.run_out()
    assert stuck.let_in == 10_016


# -- wrong rules, which the simulation must notice


def _claims_without_room(monkeypatch: pytest.MonkeyPatch) -> None:
    ask = queue._Pass._ask

    def forgets(self: Any, line: WaitingModel, present: tuple[str, ...], claimed: Claims) -> Forecast | NoRoom:
        return ask(self, line, present, {})

    monkeypatch.setattr(queue._Pass, "_ask", forgets)


def _leavers_stay_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SchedulerState, "_excluded", lambda self: self.unloads.models)


def _claims_are_only_the_newcomers(monkeypatch: pytest.MonkeyPatch) -> None:
    """The devices that the leavers are on count as free and quiet."""
    forecast = Machine.forecast

    def of_the_newcomer(self: Machine, model_id: str, **what: Any) -> Forecast | NoRoom:
        found = forecast(self, model_id, **what)
        return replace(found, claim=self.placed[model_id]) if isinstance(found, Forecast) else found

    monkeypatch.setattr(Machine, "forecast", of_the_newcomer)


@pytest.mark.parametrize("mutate", [_claims_without_room, _leavers_stay_open, _claims_are_only_the_newcomers])
def test_wrong_rule_is_noticed(mutate: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch) -> None:
    mutate(monkeypatch)
    with pytest.raises((OverCommitted, AssertionError, KeyError)):
        for scenario in SCENARIOS:
            trace = mixed_trace(scenario.weights, rate=scenario.rate, seconds=1800, seed=1)
            replay(scenario.machine(), trace, limits())


# -- single decisions; one model at a time


def alone(model_id: str, *, present: tuple[str, ...], claimed: Claims) -> Forecast | NoRoom:
    if claimed.keys() - set(present):
        return NoRoom("one at a time")
    return Forecast(frozenset(present), {"all": 1})


def decided(lines: Sequence[WaitingModel], resident: ResidentModel | None, now: float) -> Decisions:
    return decide(QueueView(lines, [resident] if resident else []), now, BOUNDS, alone)


def steps(decisions: Decisions) -> dict[str, Step]:
    return {turn.model_id: turn.step for turn in decisions.turns}


def held(*, since: float = 0.0, idle_since: float | None = None) -> ResidentModel:
    return ResidentModel("a", since, idle_since, swap_seconds=4.0)


LONG_AGO = -1000.0


def test_first_swap_goes_to_the_oldest_request() -> None:
    lines = [WaitingModel("b", since=2.0), WaitingModel("c", since=1.0)]
    assert steps(decided(lines, None, 3.0)) == {"c": Step.SWAP, "b": Step.WAIT}


def test_request_for_the_resident_model_goes_ahead_in_its_slice() -> None:
    lines = [WaitingModel("b", since=0.5, swap_seconds=3.0), WaitingModel("a", since=0.6)]
    assert steps(decided(lines, held(), 1.0)) == {"b": Step.WAIT, "a": Step.GRANT}
    assert steps(decided(lines, held(), 6.9))["a"] is Step.GRANT  # the slice is what there and back take: 3 + 4 s
    after = decided(lines, held(), 7.0)
    assert (steps(after), after.closed) == ({"b": Step.SWAP, "a": Step.WAIT}, {"a"})


def test_slice_is_two_seconds_where_nothing_is_known() -> None:
    resident = ResidentModel("a", since=0.0, idle_since=None)
    assert decided([WaitingModel("b", since=0.5)], resident, 1.0).until == 2.0
    assert steps(decided([WaitingModel("b", since=0.5)], resident, 2.0)) == {"b": Step.SWAP}


def test_long_resident_model_is_unloaded_for_another_request() -> None:
    assert steps(decided([WaitingModel("b", since=0.0)], held(since=LONG_AGO), 0.0)) == {"b": Step.SWAP}


def test_idle_model_stays_for_half_a_swap_at_most() -> None:
    resident = held(idle_since=1.0)
    assert decided([WaitingModel("b", since=1.1, swap_seconds=3.0)], resident, 1.2).until == 2.5
    assert decided([WaitingModel("b", since=1.1, swap_seconds=10.0)], resident, 1.2).until == 3.0
    assert steps(decided([WaitingModel("b", since=1.1)], resident, 1.2)) == {"b": Step.SWAP}


def test_long_wait_ends_the_slice() -> None:
    lines = [WaitingModel("b", since=LONG_AGO, swap_seconds=3.0), WaitingModel("a", since=LONG_AGO + 1)]
    assert steps(decided(lines, held(), 0.1))["b"] is Step.SWAP


def test_its_swap_is_begun_so_early_that_it_is_over_in_time() -> None:
    resident = ResidentModel("a", since=0.0, idle_since=None, swap_seconds=100.0)
    assert decided([WaitingModel("b", since=0.0, swap_seconds=5.0)], resident, 14.9).until == 15.0
    assert steps(decided([WaitingModel("b", since=0.0, swap_seconds=5.0)], resident, 15.0)) == {"b": Step.SWAP}


def test_swaps_that_come_before_it_are_begun_so_early_too() -> None:
    """c has to wait for the swap to b as well; b alone could have waited until 15."""
    resident = ResidentModel("a", since=0.0, idle_since=None, swap_seconds=100.0)
    lines = [WaitingModel("b", since=0.0, swap_seconds=5.0), WaitingModel("c", since=0.5, swap_seconds=6.0)]
    assert decided(lines, resident, 9.4).until == 9.5
    assert steps(decided(lines, resident, 9.5)) == {"b": Step.SWAP, "c": Step.WAIT}


def test_oldest_request_is_let_in_also_when_the_slice_is_over() -> None:
    lines = [WaitingModel("b", since=2.0), WaitingModel("a", since=1.0)]
    assert steps(decided(lines, held(since=LONG_AGO), 3.0)) == {"a": Step.GRANT, "b": Step.SWAP}


def test_by_hand_goes_before_all_others() -> None:
    lines = [WaitingModel("b", since=1.0), WaitingModel("c", since=2.0, interactive=True)]
    assert steps(decided(lines, held(since=1.9), 2.0)) == {"c": Step.SWAP, "b": Step.WAIT}


def test_pinned_model_leaves_for_a_user_only() -> None:
    resident = ResidentModel("a", since=LONG_AGO, idle_since=LONG_AGO, pinned=True)
    [turn] = decided([WaitingModel("b", since=1.0)], resident, 2.0).turns
    assert turn == Turn("b", Step.REFUSE_PINNED, Forecast(frozenset("a")))
    assert steps(decided([WaitingModel("b", since=1.0, interactive=True)], resident, 2.0)) == {"b": Step.SWAP}


def test_model_being_unloaded_is_waited_for() -> None:
    view = QueueView([WaitingModel("a", since=0.0), WaitingModel("b", since=1.0)], [], unloading=("a",))
    assert steps(decide(view, 2.0, BOUNDS, alone)) == {"a": Step.WAIT, "b": Step.WAIT}


def test_model_that_fits_nowhere_is_tried_for_its_error() -> None:
    def nowhere(model_id: str, *, present: tuple[str, ...], claimed: Claims) -> NoRoom:
        return NoRoom("too large")

    decisions = decide(QueueView([WaitingModel("b", since=0.0)], [held()]), 1.0, BOUNDS, nowhere)
    assert decisions.turns == (Turn("b", Step.SWAP),)


# -- single decisions; several models on two GPUs


def on_two_gpus(model_id: str, *, present: tuple[str, ...], claimed: Claims) -> Forecast | NoRoom:
    """Each model fills the GPU of its first letter: "x1" and "x2" cannot share; "x1" and "y1" can."""
    rivals = {name for name in (*present, *claimed) if name[0] == model_id[0]}
    if not rivals <= set(present):
        return NoRoom("full")
    return Forecast(frozenset(rivals), {model_id[0]: 1})


BUSY = {"since": 0.0, "idle_since": None}


def test_swaps_on_different_gpus_run_side_by_side() -> None:
    residents = [ResidentModel("x1", LONG_AGO, LONG_AGO), ResidentModel("y1", LONG_AGO, LONG_AGO)]
    lines = [WaitingModel("x2", since=1.0), WaitingModel("y2", since=2.0)]
    decisions = decide(QueueView(lines, residents), 3.0, BOUNDS, on_two_gpus)
    assert steps(decisions) == {"x2": Step.SWAP, "y2": Step.SWAP}
    assert [turn.forecast.leavers for turn in decisions.turns] == [{"x1"}, {"y1"}]


def test_model_for_which_none_must_leave_begins_at_once() -> None:
    decisions = decide(QueueView([WaitingModel("y1", 1.0)], [ResidentModel("x1", 0.0, None)]), 1.0, BOUNDS, on_two_gpus)
    assert (steps(decisions), decisions.closed) == ({"y1": Step.SWAP}, frozenset())


def test_only_leavers_stop_to_admit_requests() -> None:
    residents = [ResidentModel("x1", LONG_AGO, None), ResidentModel("y1", LONG_AGO, None)]
    decisions = decide(QueueView([WaitingModel("x2", 1.0)], residents), 2.0, BOUNDS, on_two_gpus)
    assert decisions.closed == {"x1"}


def test_later_line_takes_no_leaver_of_an_earlier_one() -> None:
    lines = [WaitingModel("x2", since=1.0), WaitingModel("x3", since=2.0)]
    decisions = decide(QueueView(lines, [ResidentModel("x1", LONG_AGO, None)]), 3.0, BOUNDS, on_two_gpus)
    assert steps(decisions) == {"x2": Step.SWAP, "x3": Step.WAIT}
    assert decisions.turns[1].after == {"x2"}


def test_swap_waits_for_another_load_on_its_device() -> None:
    def beside(model_id: str, *, present: tuple[str, ...], claimed: Claims) -> Forecast:
        return Forecast(frozenset(), {"x": 1})

    view = QueueView([WaitingModel("b", 0.0)], [], swaps={"a": Forecast(frozenset(), {"x": 1})})
    [turn] = decide(view, 1.0, BOUNDS, beside).turns
    assert (turn.step, turn.is_blocked) == (Step.WAIT, True)
    on_the_cpu = QueueView([WaitingModel("b", 0.0)], [], swaps={"a": Forecast(frozenset(), {"ram": 1})})
    assert decide(on_the_cpu, 1.0, BOUNDS, beside).turns[0].step is Step.SWAP


def test_drain_gives_way_to_a_model_that_is_idle() -> None:
    """It waited for x1's endless response although x2, which could leave as well, had fallen idle."""

    def either(model_id: str, *, present: tuple[str, ...], claimed: Claims) -> Forecast | NoRoom:
        return Forecast(frozenset(present[:1]), {"x": 1}) if present else NoRoom("full")

    line = WaitingModel("b", 0.0, draining=frozenset({"x1"}))
    both_busy = [ResidentModel("x1", LONG_AGO, None, last_used=2.0), ResidentModel("x2", LONG_AGO, None, last_used=1.0)]
    assert decide(QueueView([line], both_busy), 1.0, BOUNDS, either).turns[0].forecast.leavers == {"x1"}
    idle = [both_busy[0], ResidentModel("x2", LONG_AGO, 0.5, last_used=1.0)]
    assert decide(QueueView([line], idle), 1.0, BOUNDS, either).turns[0].forecast.leavers == {"x2"}


def test_retry_after_is_between_a_second_and_five_minutes() -> None:
    assert [retry_after_seconds(seconds) for seconds in (0.0, 4.2, 4000.0, None)] == [1, 5, 300, 30]


def test_backoff_doubles_from_ten_seconds_to_five_minutes() -> None:
    backoff, waits = None, []
    for _ in range(8):
        backoff = Backoff.after_failure(backoff, 100.0)
        waits.append(backoff.until - 100.0)
    assert waits == [10, 20, 40, 80, 160, 300, 300, 300]
