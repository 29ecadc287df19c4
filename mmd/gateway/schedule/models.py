"""The protocol by which the gateway reads the state of models, and loads and unloads them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Protocol

from mmd.control.models.setup_info import SetupInfo
from mmd.control.models.setups import Setup
from mmd.control.state.memory_use import Resources
from mmd.control.state.model_info import ModelInfo
from mmd.control.state.status import Status
from mmd.gateway.http.listener_kind import ListenerKind
from mmd.gateway.schedule.leases import Leases
from mmd.plan.idle import LoadedModel
from mmd.plan.placement.occupancy import Use
from mmd.plan.queue import Claims, Forecast, NoRoom


class ModelsView(Protocol):
    """What the scheduler decides on. Its methods answer from memory, from a watched view of the units or from files
    that are read again when they change: they do no other I/O.
    """

    def address(self, model_id: str) -> str | None:
        """Return the Unix socket of the model's engine if it answers now, else None. Up to date once `activate` has
        returned.
        """
        ...

    def expected_seconds(self, model_id: str) -> float | None:
        """Return the seconds that activating the model from its present state took recently; None if unknown."""
        ...

    def holders(self) -> Collection[str]:
        """Return the models that hold memory as residents, or are about to; leases are not among them."""
        ...

    def pinned(self) -> Collection[str]:
        """Return the models that only a user's command may unload."""
        ...

    def forecast(self, model_id: str, *, present: tuple[str, ...], claimed: Claims) -> Forecast | NoRoom:
        """Predict where a prepared model would be placed, and which models would leave for it; see `Forecaster`."""
        ...


class Models(ModelsView, Protocol):
    """The registered models and their engines: `SystemdModels` over systemd, `MemoryModels` in tests. Synchronous
    methods do no I/O, as those of `ModelsView`.
    """

    @property
    def leases(self) -> Leases: ...

    def find(self, name: str | None, listener_kind: ListenerKind = ListenerKind.MAIN) -> str:
        """Return the id for the name in a request. Raises NoSuchModel.

        None and "" select the active model, or else the model suspended last; on the embedding listener, the embedding
        model.
        """
        ...

    def active_model(self) -> str | None:
        """Return the model that `find` selects for a request without a name: resident, or about to be."""
        ...

    def asked(self, model_id: str) -> None:
        """Record that a request or a user asks for the model: of several resident models, it is the active one then."""
        ...

    def setup(self, name: str) -> Setup | None:
        """Return the setup with this name, None if there is none. Raises MmdError if it cannot be activated."""
        ...

    def is_asleep(self, model_id: str) -> bool:
        """Return whether the model is asleep: its engine runs, but answers no request until it is woken."""
        ...

    def follow(self, listener: Callable[[], None]) -> None:
        """Call `listener` after each change of `address` or `is_asleep`."""
        ...

    def use_from(self, read: Callable[[], Mapping[str, Use]]) -> None:
        """Read with `read` how requests use the models, whenever a plan depends on it."""
        ...

    async def loaded_models(self, *, keep_alive: Collection[str]) -> Sequence[LoadedModel]:
        """Return the resident and sleeping models, with the time of their last state change on the monotonic clock.

        Models without an idle time may be missing, unless they are in `keep_alive`: requests gave those a time.
        """
        ...

    async def was_evicted(self, model_id: str) -> bool:
        """Return whether a swap ended the model's engine; if not, it crashed or a user stopped it.

        Call it when the engine has just ended.
        """
        ...

    async def prepare(self, model_id: str) -> None:
        """Find out what the model needs, so that a forecast can be made for it. Raises what planning raises."""
        ...

    async def activate(
        self,
        model_id: str,
        *,
        drain_seconds: float,
        leavers: Collection[str] | None = None,
        devices: Collection[str] | None = None,
    ) -> None:
        """Make a model resident; return when it answers. Only `leavers` may be unloaded for it, and only
        `devices` be used (None: any).

        Raises EngineFailed, DoesNotFit, PlacementChanged, SwapSuperseded and other MmdErrors. `drain_seconds`, the time
        spent waiting for running responses, is only recorded.
        """
        ...

    async def would_unload(self, setup: Setup) -> Collection[str]:
        """Return the models that activating the setup would unload now, or start again. Raises what planning raises."""
        ...

    async def activate_setup(self, setup: Setup, *, leavers: Collection[str]) -> None:
        """Make the models of a setup resident; return when they answer. Only `leavers` may be unloaded for it.

        Raises PlacementChanged if others would have to leave, and the errors of `activate`.
        """
        ...

    def require_exposable(self, setup: Setup) -> None:
        """Raise WrongUsage if the setup exposes models without an API key."""
        ...

    async def open_tunnels(self, setup: Setup) -> None:
        """Expose the models that the setup exposes; return when they are reachable. Raises TunnelFailed and others."""
        ...

    async def close_tunnels(self, setup: Setup) -> None:
        """Close the tunnels that `open_tunnels` opened."""
        ...

    async def sleep(self, model_id: str | None, level: int | None = None) -> tuple[str, ...]:
        """Put a model (by default the active one) to sleep. Return the models that were unloaded or changed level."""
        ...

    async def stop(self, model_id: str | None) -> None: ...

    async def stop_asleep(self, model_id: str) -> None:
        """Stop a model if it is still asleep."""
        ...

    async def on_gpu(self) -> Collection[str]:
        """Return the models that use GPU memory or are about to."""
        ...

    def suspended(self) -> Sequence[str]:
        """Return the models that `suspend` took off the GPUs and that are not restored yet, latest first."""
        ...

    async def suspend(self, *, drain_seconds: float) -> None:
        """Take all models off the GPUs, including those that are loading, and record which. Failures are logged.
        `drain_seconds` is as in `activate`.
        """
        ...

    async def restore(self, model_ids: Sequence[str]) -> None:
        """Activate these models, except where that would unload another one, and take them off the record of suspended
        models. Failures are logged.
        """
        ...

    async def status(self) -> Status: ...

    async def models(self) -> list[ModelInfo]: ...

    async def setups(self) -> list[SetupInfo]: ...

    async def resources(self) -> Resources: ...
