"""Requests, swaps and answers in simulated time, with `plan.queue` in charge as the gateway has it."""

from __future__ import annotations

from dataclasses import dataclass, field

from mmd.plan.queue import (
    Decision,
    Grant,
    QueueLimits,
    Resident,
    StartSwap,
    WaitingModel,
    WaitUntil,
    decide,
    slice_ends_at,
)


@dataclass(eq=False)
class Asked:
    model: str
    came: float
    answer_seconds: float
    let_in: float | None = None


@dataclass(frozen=True)
class Swapped:
    """A swap as it began."""

    at: float
    model: str
    previous: Resident | None
    lines: list[WaitingModel]


@dataclass
class Simulation:
    """One GPU. Swaps take what they take, answers too, and a swap begins when the old model's answers have ended."""

    swap_seconds: dict[str, float]
    bounds: QueueLimits
    now: float = 0.0
    resident: str | None = None
    resident_since: float = 0.0
    idle_since: float = 0.0
    waiting: dict[str, list[Asked]] = field(default_factory=dict)
    interactive: set[str] = field(default_factory=set)
    answering: list[tuple[float, Asked]] = field(default_factory=list)  # by when they end
    swapping: tuple[str, float] | None = None  # to whom, until when
    swaps: list[Swapped] = field(default_factory=list)
    served: list[Asked] = field(default_factory=list)

    def ask(self, model: str, answer_seconds: float) -> Asked:
        asked = Asked(model, self.now, answer_seconds)
        if self.resident == model and self.swapping is None and self._is_open():
            self._let_in(asked)
        else:
            self.waiting.setdefault(model, []).append(asked)
        self._act()
        return asked

    def leave(self, asked: Asked) -> None:
        line = self.waiting[asked.model]
        line.remove(asked)
        if not line:
            del self.waiting[asked.model]
            self.interactive.discard(asked.model)
        self._act()

    def activate(self, model: str) -> Asked:
        asked = self.ask(model, 0.0)
        if asked.let_in is None and (self.swapping is None or self.swapping[0] != model):
            self.interactive.add(model)
            self._act()
        return asked

    def run_until(self, end: float) -> None:
        while (event := self._next_event()) is not None and event <= end:
            self.now = max(self.now, event)
            self._happen()
            self._act()
        self.now = end

    def run_out(self) -> None:
        """Run until no request waits or runs."""
        while (event := self._next_event()) is not None:
            self.run_until(event)

    @property
    def lines(self) -> list[WaitingModel]:
        return [
            WaitingModel(model, line[0].came, self.swap_seconds[model], model in self.interactive)
            for model, line in self.waiting.items()
        ]

    @property
    def holder(self) -> Resident | None:
        if self.resident is None:
            return None
        idle_since = None if self.answering else max(self.idle_since, self.resident_since)
        return Resident(self.resident, self.resident_since, idle_since, self.swap_seconds[self.resident])

    def _is_open(self) -> bool:
        assert self.holder is not None
        return self.resident not in self.waiting and self.now < slice_ends_at(self.holder, self.lines, self.bounds)

    def _next_event(self) -> float | None:
        events = [end for end, _ in self.answering]
        if self.swapping is not None:
            events.append(self.swapping[1])
        elif self.waiting and isinstance(decision := self._decide(), WaitUntil):
            events.append(decision.until)
        return min(events, default=None)

    def _decide(self) -> Decision:
        return decide(self.lines, self.holder, self.now, self.bounds)

    def _happen(self) -> None:
        before = len(self.answering)
        self.answering = [(end, asked) for end, asked in self.answering if end > self.now]
        if before and not self.answering:
            self.idle_since = self.now
        if self.swapping is not None and self.swapping[1] <= self.now:
            self.resident, self.resident_since = self.swapping[0], self.now
            self.swapping = None
            self._let_line_in(self.resident)

    def _act(self) -> None:
        while self.waiting and self.swapping is None:
            decision = self._decide()
            match decision:
                case Grant(model):
                    assert model == self.resident
                    self._let_line_in(model)
                case StartSwap(model):
                    assert model in self.waiting
                    assert model != self.resident
                    if self.answering:
                        return  # drain
                    self.swaps.append(Swapped(self.now, model, self.holder, self.lines))
                    self.resident = None
                    self.swapping = model, self.now + self.swap_seconds[model]
                case WaitUntil(until):
                    assert until > self.now
                    return

    def _let_line_in(self, model: str) -> None:
        for asked in self.waiting.pop(model, []):
            self._let_in(asked)
        self.interactive.discard(model)

    def _let_in(self, asked: Asked) -> None:
        asked.let_in = self.now
        self.served.append(asked)
        if asked.answer_seconds:
            self.answering.append((self.now + asked.answer_seconds, asked))
        else:
            self.idle_since = self.now
