"""What happens to the scheduler's state, and what its owner must do: events in, effects out."""

from __future__ import annotations

from dataclasses import dataclass

from mmd.gateway.schedule.model_queue import Waiter
from mmd.plan.queue import Forecast


@dataclass(frozen=True, slots=True)
class Arrived:
    """A request could not be admitted at once, and waits."""

    waiter: Waiter


@dataclass(frozen=True, slots=True)
class Left:
    """A request that waits was given up by its client."""

    ticket: int


@dataclass(frozen=True, slots=True)
class Released:
    """A response has ended."""

    model_id: str


@dataclass(frozen=True, slots=True)
class Prepared:
    """The model's demand is known, or `error` says why it cannot run."""

    model_id: str
    error: Exception | None = None


@dataclass(frozen=True, slots=True)
class SwapEnded:
    """The model answers, or `error` says why it does not."""

    model_id: str
    error: Exception | None = None


@dataclass(frozen=True, slots=True)
class SwapDropped:
    """The swap was not begun: no request waited for the model any more."""

    model_id: str


@dataclass(frozen=True, slots=True)
class Changed:
    """Units have changed, or the time of a `WakeAt` has come."""


@dataclass(frozen=True, slots=True)
class Paused:
    """Admit no request and begin no swap. Swaps under way are not followed any longer."""


@dataclass(frozen=True, slots=True)
class Resumed: ...


@dataclass(frozen=True, slots=True)
class Closed:
    """Refuse all requests that wait."""

    error: Exception


@dataclass(frozen=True, slots=True)
class UnloadAsked:
    """A request to unload models without a swap; `key` is its number.

    From now on no request for the models is admitted. The unload begins when their responses have ended, or have been
    cut after `limit_seconds`. With `only_idle`, it is declined instead if a request uses the models, or if a swap or
    another unload concerns them.
    """

    key: int
    models: frozenset[str]
    only_idle: bool = False
    limit_seconds: float = 0.0
    reason: str = ""  # for which responses are cut


@dataclass(frozen=True, slots=True)
class UnloadEnded:
    """The unload has ended, or was given up."""

    key: int


Event = (
    Arrived
    | Left
    | Released
    | Prepared
    | SwapEnded
    | SwapDropped
    | Changed
    | Paused
    | Resumed
    | Closed
    | UnloadAsked
    | UnloadEnded
)


@dataclass(frozen=True, slots=True)
class Admit:
    """The request may go to the model's engine; it counts as in flight from now."""

    ticket: int
    model_id: str


@dataclass(frozen=True, slots=True)
class Refuse:
    """The request ends with an error."""

    ticket: int
    error: Exception


@dataclass(frozen=True, slots=True)
class Prepare:
    """Find out what the model needs; answer with `Prepared`."""

    model_id: str


@dataclass(frozen=True, slots=True)
class StartSwap:
    """Load the model on the devices of the forecast; only its leavers may be unloaded. Answer with `SwapEnded` or
    `SwapDropped`.
    """

    model_id: str
    forecast: Forecast
    drain_seconds: float


@dataclass(frozen=True, slots=True)
class CutResponses:
    """End the running responses of these models.

    `reason`: what is loaded instead. `limit_seconds`: the drain limit that has ended; None if a user asked to cut.

    If it `requeues`, requests without a response so far wait again. Not after a limit, which would end them again and
    again, and not for a user's `sleep`: the model would be loaded again at once.
    """

    models: frozenset[str]
    reason: str
    limit_seconds: float | None
    requeues: bool = False


@dataclass(frozen=True, slots=True)
class BeginUnload:
    """The models' responses have ended: unload them. Answer with `UnloadEnded`."""

    key: int


@dataclass(frozen=True, slots=True)
class DeclineUnload:
    """An `only_idle` unload does not happen."""

    key: int


@dataclass(frozen=True, slots=True)
class WakeAt:
    """Report `Changed` at this time, unless a later effect names another one."""

    at: float


Effect = Admit | Refuse | Prepare | StartSwap | CutResponses | BeginUnload | DeclineUnload | WakeAt
