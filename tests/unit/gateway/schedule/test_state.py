"""The scheduler's state machine, without a gateway: random events on a simulated machine of two GPUs."""

from __future__ import annotations

import ast
import math
from pathlib import Path

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, precondition, rule

from mmd.errors import EngineFailed, GpuPinned, PlacementChanged, TryLater
from mmd.gateway.http.limits import Limits
from mmd.gateway.schedule import events, scheduler, state, unloads
from mmd.gateway.schedule.model_queue import Waiter
from mmd.plan.placement.place import Shape
from tests.unit.plan.simulated_queue import Asked, Machine, SimulatedModel, Simulation, gpus, whole

MODELS = {
    "chat1": whole(14000, 4.0),
    "chat2": whole(14000, 5.0),
    "chat3": whole(9000, 3.0),
    "embed": whole(1000, 0.5),
    "rerank": whole(2500, 0.0),
    "big": SimulatedModel(Shape(2, 13000), 6.0),
}
LONGEST_ANSWER_SECONDS = 8.0
UNLOAD_SECONDS = 2.0
names = st.sampled_from(sorted(MODELS))


class TwoGpus(RuleBasedStateMachine):
    """Clients, users, idle rules and suspends on a machine of 24 and 16 GB; swaps that fail; models that are pinned."""

    waiters = Bundle("waiters")

    @initialize(drain_seconds=st.sampled_from([math.inf, 3.0]))
    def begin(self, drain_seconds: float) -> None:
        limits = Limits(max_wait_seconds=20.0, min_residency_seconds=2.0, drain_seconds=drain_seconds)
        self.room = Simulation(Machine(gpus(24000, 16000), MODELS), limits)
        self.asked: list[Asked] = []
        self.has_paused = False
        self.may_cut = drain_seconds < math.inf
        self.disturbances = 0

    @rule(target=waiters, model=names, seconds=st.floats(0, LONGEST_ANSWER_SECONDS))
    def ask(self, model: str, seconds: float) -> Asked:
        self.asked.append(self.room.ask(model, seconds))
        return self.asked[-1]

    @rule(model=names, cuts=st.booleans())
    def activate(self, model: str, cuts: bool) -> None:
        self.may_cut |= cuts
        self.disturbances += 1
        self.asked.append(self.room.ask(model, 0.0, interactive=True, cuts=cuts))

    @rule(asked=consumes(waiters))
    def leave(self, asked: Asked) -> None:
        self.room.leave(asked)

    @rule(model=names, only_idle=st.booleans(), limit_seconds=st.sampled_from([math.inf, 1.0]))
    def unload(self, model: str, only_idle: bool, limit_seconds: float) -> None:
        self.may_cut |= limit_seconds < math.inf
        self.disturbances += 1
        self.room.ask_to_unload(model, only_idle=only_idle, limit_seconds=limit_seconds, seconds=UNLOAD_SECONDS)

    @rule(model=names, is_superseded=st.booleans())
    def next_swap_fails(self, model: str, is_superseded: bool) -> None:
        self.disturbances += 1
        error = PlacementChanged if is_superseded else EngineFailed
        self.room.failing[model] = error(f"{model} failed", hint="mmd logs")

    @rule(model=names)
    def pin(self, model: str) -> None:
        self.room.machine.pinned_models ^= {model}

    @precondition(lambda self: not self.has_paused)
    @rule()
    def suspend(self) -> None:
        self.has_paused = True
        self.room.pause()

    @precondition(lambda self: self.has_paused)
    @rule()
    def wake_up(self) -> None:
        self.has_paused = False
        self.disturbances += 1
        self.room.resume()

    @rule(seconds=st.floats(0, 20))
    def pass_time(self, seconds: float) -> None:
        self.room.run_until(self.room.now + seconds)

    @invariant()
    def responses_are_cut_only_if_asked_for(self) -> None:
        if hasattr(self, "room"):
            assert self.may_cut or not self.room.cut

    @invariant()
    def memory_lies_idle_on_purpose_only(self) -> None:
        """If no response runs and nothing is loaded or unloaded, a request waits for a slice of 2 s at most."""
        if not hasattr(self, "room") or self.has_paused:
            return
        room = self.room
        is_calm = not (room.machine.coming or room.answering or room.unloads)
        if is_calm and room.waiting and all(queue.is_prepared for queue in room.state.queues.values()):
            assert room.next_wake_at - room.now <= 2.0 + 1e-6

    def teardown(self) -> None:
        if not hasattr(self, "room"):
            return
        self.room.resume()
        self.room.run_out()
        assert not self.room.waiting
        assert not self.room.unloads
        turn_seconds = 6.0 + LONGEST_ANSWER_SECONDS + UNLOAD_SECONDS
        for asked in self.asked:
            assert asked.has_left + (asked.let_in is not None) + (asked.error is not None) == 1
            if asked.error is not None:
                assert isinstance(asked.error, (EngineFailed, GpuPinned, PlacementChanged, TryLater))
            if asked.let_in is not None and not self.suspended_between(asked):
                most = 20.0 + (len(MODELS) + self.disturbances) * turn_seconds
                assert asked.let_in - asked.came <= most

    def suspended_between(self, asked: Asked) -> bool:
        assert asked.let_in is not None
        return any(asked.came <= end and begin <= asked.let_in for begin, end in self.room.pauses)


TwoGpus.TestCase.settings = settings(stateful_step_count=40, phases=[Phase.generate, Phase.shrink])
TestTwoGpus = TwoGpus.TestCase


@pytest.mark.parametrize("module", [state, unloads, events])
def test_state_machine_has_no_clock_and_does_not_wait(module: object) -> None:
    tree = ast.parse(Path(module.__file__).read_text("utf-8"))  # type: ignore[attr-defined]
    imported = {
        name.split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for name in ([node.module or ""] if isinstance(node, ast.ImportFrom) else [one.name for one in node.names])
    }
    assert imported <= {"__future__", "collections", "dataclasses", "enum", "math", "mmd"}
    assert not any(isinstance(node, (ast.AsyncFunctionDef, ast.Await)) for node in ast.walk(tree))


def test_runner_knows_every_effect() -> None:
    source = Path(scheduler.__file__).read_text("utf-8")
    assert all(f"case {effect.__name__}(" in source for effect in events.Effect.__args__)


def room(*, drain_seconds: float = math.inf) -> Simulation:
    limits = Limits(max_wait_seconds=20.0, min_residency_seconds=0.0, drain_seconds=drain_seconds)
    return Simulation(Machine(gpus(16000), MODELS), limits)


def test_limit_cuts_the_responses_of_the_leavers_only() -> None:
    simulation = room(drain_seconds=3.0)
    long, light = simulation.ask("chat1", 1000.0), simulation.ask("embed", 1000.0)
    simulation.run_until(10)
    other = simulation.ask("chat2", 1.0)
    simulation.run_until(30)
    assert (long.was_cut, light.was_cut) == (True, False)
    assert simulation.cut == [(16.0, {"chat1"})]  # its slice of 9 s ended at 13
    assert other.let_in == 21.0


def test_user_may_cut_at_once() -> None:
    simulation = room()
    long = simulation.ask("chat1", 1000.0)
    simulation.run_until(10)
    by_hand = simulation.ask("chat2", 0.0, interactive=True, cuts=True)
    simulation.run_until(20)
    assert long.was_cut
    assert by_hand.let_in == 15.0


def test_changed_placement_is_planned_again_three_times() -> None:
    simulation = room()
    for attempt in range(4):
        simulation.failing["chat1"] = PlacementChanged("another model came", hint="mmd status")
        if not attempt:
            asked = simulation.ask("chat1", 1.0)
        simulation.run_until((attempt + 1) * 4.0)
    assert isinstance(asked.error, PlacementChanged)
    assert len(simulation.swaps) == 4


def test_acquire_asks_for_no_plan_while_many_lines_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred waiting models cost a request for a resident one a lookup in a set."""
    simulation = room()
    models = {**MODELS, **{f"m{number}": whole(15999, 5.0) for number in range(100)}}
    simulation.machine.models = models
    simulation.ask("embed", 1000.0)
    simulation.run_until(2)
    for number in range(100):
        simulation.ask(f"m{number}", 1.0)
    assert "embed" in simulation.machine.held
    count = 0

    def counted(self: Machine, model_id: str, **_: object) -> None:
        nonlocal count
        count += 1

    monkeypatch.setattr(Machine, "forecast", counted)
    assert isinstance(simulation.state.closed, frozenset)
    assert "chat1" not in simulation.state.closed
    assert count == 0


def test_second_request_of_a_line_asks_for_no_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    simulation = room()
    simulation.ask("chat1", 1000.0)
    simulation.run_until(5)
    simulation.ask("chat2", 1.0)
    simulation.run_until(6)
    monkeypatch.setattr(Machine, "forecast", None)
    assert simulation.state.step(events.Arrived(Waiter(99, "chat2")), 6.0) == []
