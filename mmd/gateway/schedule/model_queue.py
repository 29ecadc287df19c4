"""The requests that wait for a model."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Waiter:
    """A request that waits. `ticket` is its number; the scheduler knows whose it is."""

    ticket: int
    model_id: str
    body_bytes: int = 0  # of memory that it holds meanwhile
    interactive: bool = False  # a user waits for the model itself: no backoff, no pin and no slice delays it
    cuts: bool = False  # running responses of the models that leave for it are cut
    force_reload: bool = False  # the model counts as resident, but its engine refuses connections


@dataclass(slots=True)
class ModelQueue:
    """The requests that wait for one model, oldest first. The scheduler's state owns it."""

    model_id: str
    since: float  # when its oldest request arrived
    waiters: dict[int, tuple[Waiter, float]] = field(default_factory=dict)
    interactive: int = 0  # how many of them are interactive
    cutting: int = 0  # how many of them cut running responses
    force_reload: bool = False
    is_prepared: bool = False  # its demand is known
    asked_to_prepare: bool = False
    placement_changes: int = 0  # how often its swap needed another placement than the forecast

    def add(self, waiter: Waiter, now: float) -> None:
        self.waiters[waiter.ticket] = waiter, now
        self.interactive += waiter.interactive
        self.cutting += waiter.cuts
        self.force_reload |= waiter.force_reload

    def discard(self, ticket: int) -> Waiter:
        waiter, _ = self.waiters.pop(ticket)
        self.interactive -= waiter.interactive
        self.cutting -= waiter.cuts
        if self.waiters:
            self.since = next(iter(self.waiters.values()))[1]
        return waiter
