"""Which models are due to sleep or to stop, in simulated time."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmd.plan.idle import Due, IdleAction, LoadedModel, Rules, Usage, plan_idle

TEN = Rules(sleep_seconds=10, stop_seconds=100)


def due_at(occupant: LoadedModel, use: Usage, now: float) -> IdleAction | None:
    due = plan_idle([occupant], {occupant.model_id: use}, now).due
    return due[0].action if due else None


@pytest.mark.parametrize(
    ("occupant", "use", "at"),
    [
        (LoadedModel("a", False, 50, TEN), Usage(), 60),  # never asked for: since it became resident
        (LoadedModel("a", False, 50, TEN), Usage(ended=70), 80),
        (LoadedModel("a", False, 90, TEN), Usage(ended=70), 100),  # activated by hand since
        (LoadedModel("a", False, 50, TEN), Usage(ended=70, keep_seconds=0), 70),
        (LoadedModel("a", False, 50, TEN), Usage(ended=70, keep_seconds=3), 73),
        (LoadedModel("a", False, 50, Rules()), Usage(ended=70, keep_seconds=3), 73),
        (
            LoadedModel("a", True, 50, TEN),
            Usage(ended=40, keep_seconds=3),
            150,
        ),  # keep_alive is about the GPU
    ],
)
def test_a_model_is_due_when_its_time_is_over(occupant: LoadedModel, use: Usage, at: float) -> None:
    uses = {"a": use}
    before = plan_idle([occupant], uses, at - 0.01)
    assert (before.due, before.look_at, before.look_when_unused) == ((), at, frozenset())
    assert due_at(occupant, use, at) is (IdleAction.STOP if occupant.is_asleep else IdleAction.SLEEP)


@pytest.mark.parametrize(
    ("occupant", "use"),
    [
        (LoadedModel("a", False, 0, Rules()), Usage()),
        (LoadedModel("a", True, 0, Rules(sleep_seconds=1)), Usage()),
        (LoadedModel("a", False, 0, TEN), Usage(keep_seconds=math.inf)),
        (LoadedModel("a", False, 0, Rules(1, 1, pinned=True)), Usage(keep_seconds=0)),
        (LoadedModel("a", True, 0, Rules(1, 1, pinned=True)), Usage()),
    ],
)
def test_who_stays_for_ever(occupant: LoadedModel, use: Usage) -> None:
    ahead = plan_idle([occupant], {"a": use}, 1e9)
    assert (ahead.due, ahead.look_at, ahead.look_when_unused) == ((), math.inf, frozenset())


def test_busy_model_is_checked_at_its_earliest_due_time() -> None:
    ahead = plan_idle([LoadedModel("a", False, 0, TEN)], {"a": Usage(is_active=True, ended=5)}, 1000)
    assert (ahead.due, ahead.look_at) == ((), 1010)


def test_immediate_unload_is_checked_when_the_use_ends() -> None:
    """To look every 0 seconds until then would keep a core busy."""
    ahead = plan_idle([LoadedModel("a", False, 0, TEN)], {"a": Usage(is_active=True, keep_seconds=0)}, 1000)
    assert (ahead.due, ahead.look_at, ahead.look_when_unused) == ((), math.inf, {"a"})


def test_the_journal_says_why() -> None:
    occupants = [LoadedModel("a", False, 0, TEN), LoadedModel("b", False, 0), LoadedModel("c", True, 0, TEN)]
    assert plan_idle(occupants, {"b": Usage(keep_seconds=60)}, 300).due == (
        Due("a", IdleAction.SLEEP, "unused for 300 s (idle_sleep_seconds)"),
        Due("b", IdleAction.SLEEP, "unused for 300 s (keep_alive)"),
        Due("c", IdleAction.STOP, "asleep for 300 s (idle_stop_seconds)"),
    )


@dataclass
class Clock:
    """Lets time pass over one model as the gateway does: it plans again at `look_at`, and when something changes."""

    occupant: LoadedModel
    use: Usage = field(default_factory=Usage)
    now: float = 0.0
    looks: int = 0
    look_at: float = math.inf
    rested: list[tuple[float, IdleAction]] = field(default_factory=list)

    def pass_to(self, until: float) -> None:
        while self.look_at <= until:
            self.now = max(self.now, self.look_at)
            self.look()
        self.now = until

    def change(self, use: Usage) -> None:
        """A request arrives or ends. That alone triggers no new plan, except as the plan says."""
        ahead = plan_idle([self.occupant], self._uses(), self.now)
        ends = self.use.is_active and not use.is_active
        says_otherwise = use.keep_seconds != self.use.keep_seconds
        self.use = use
        if says_otherwise or (ends and self.occupant.model_id in ahead.look_when_unused):
            self.look()

    def look(self) -> None:
        self.looks += 1
        ahead = plan_idle([self.occupant], self._uses(), self.now)
        for rest in ahead.due:
            self.rested.append((self.now, rest.action))
            is_asleep = rest.action is IdleAction.SLEEP
            self.occupant = LoadedModel("a", is_asleep, self.now, self.occupant.rules if is_asleep else Rules())
            self.use = Usage(ended=self.use.ended)
        self.look_at = plan_idle([self.occupant], self._uses(), self.now).look_at

    def _uses(self) -> Mapping[str, Usage]:
        return {"a": self.use}


_SECONDS = st.sampled_from([0.0, 0.5, 1.0, 7.0, 30.0, math.inf])


@given(
    st.builds(Rules, _SECONDS.filter(bool), _SECONDS.filter(bool)),
    st.lists(st.tuples(st.floats(0, 40), st.floats(0, 40), st.one_of(st.none(), _SECONDS)), max_size=8),
)
def test_no_request_is_cut_and_no_model_stays_longer(
    rules: Rules, requests: list[tuple[float, float, float | None]]
) -> None:
    """Requests that come one after another: so long after the last, taking so long, with this wish."""
    clock = Clock(LoadedModel("a", False, 0, rules))
    clock.look()
    idle_since, keep = 0.0, None
    for gap, answer, wish in requests:
        due = idle_since + (rules.sleep_seconds if keep is None else keep)
        clock.pass_to(clock.now + gap)
        if clock.now >= due:
            assert clock.rested[0] == (pytest.approx(due), IdleAction.SLEEP)
            return
        assert not clock.rested
        keep = keep if wish is None else wish
        clock.change(Usage(is_active=True, ended=idle_since, keep_seconds=keep))
        clock.pass_to(clock.now + answer)
        assert not clock.rested, "it was in use"
        idle_since = clock.now
        clock.change(Usage(ended=idle_since, keep_seconds=keep))
    due = idle_since + (rules.sleep_seconds if keep is None else keep)
    clock.pass_to(1e6)
    expected = [] if due == math.inf else [(pytest.approx(due), IdleAction.SLEEP)]
    if expected and rules.stop_seconds != math.inf:
        expected.append((pytest.approx(due + rules.stop_seconds), IdleAction.STOP))
    assert clock.rested == expected


def test_busy_model_is_checked_once_per_idle_time() -> None:
    clock = Clock(LoadedModel("a", False, 0, TEN))
    clock.look()
    for second in range(1000):
        clock.pass_to(float(second))
        clock.change(Usage(ended=float(second)))
    assert clock.looks <= 112
