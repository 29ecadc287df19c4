"""Plan how registered models are started on this machine."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mmd.control.lifecycle.light_models import LightModels
from mmd.control.state.refused_flags import RefusedFlags
from mmd.quantities import MIB

if TYPE_CHECKING:
    from mmd.control.memory.estimate import Estimator
    from mmd.control.state.machine_reader import MachineReader
    from mmd.machine import Machine
    from mmd.plan.allocation import Allocation
    from mmd.plan.choose import ModelSettings
    from mmd.plan.last_words import Refusal
    from mmd.plan.launch import Launch
    from mmd.plan.placement.demand import Demand
    from mmd.plan.placement.occupancy import Use
    from mmd.plan.placement.place import Device
    from mmd.registry.record import Model
    from mmd.registry.store import Registry
    from mmd.settings import Settings


class LaunchPlanner:
    """Plans launches from the registry, mmd.toml, the installed engines and the machine, as they are at each call.

    Its work, imports included, is done in the reader's thread.
    """

    def __init__(self, reader: MachineReader, registry: Registry) -> None:
        self._reader = reader
        self._registry = registry
        self._machine: Machine | None = None
        self._others = ""
        self._refused = RefusedFlags()
        self._light = LightModels()
        self._read: tuple[tuple[int, int, int], Settings] | None = None  # mmd.toml: inode, size and time; its content
        self.uses: Callable[[], Mapping[str, Use]] = dict  # how requests use the models; the gateway sets it

    async def one_each(self) -> bool:
        """Return whether a device has at most one resident model. Raises WrongUsage and StorageFailed."""
        return await self._reader.call(self._is_one_each)

    async def pinned(self) -> frozenset[str]:
        """Return the models that only a user's command unloads. Raises WrongUsage and StorageFailed."""
        return await self._reader.call(self._pinned)

    async def launch(self, model_id: str, *, allocation: Allocation | None = None) -> Launch:
        """Plan how a model is started: in exactly the share of an allocation, else as if it were alone.

        It uses the last reading of the machine. Raises NoSuchModel and what `plan_launch` raises.
        """
        if self._machine is None:
            self._machine = await self._reader.machine()
        return await self._reader.call(self._plan, model_id, self._machine, allocation)

    async def devices(self, held_mib: Mapping[str, int], lease_pids: Collection[int] = ()) -> tuple[Device, ...]:
        """Read the machine now. Return its devices, with what models and leases may use of each.

        `held_mib` is what they hold of each device now, `lease_pids` are processes of leases. Raises TryLater, and what
        reading mmd.toml raises.
        """
        self._machine = await self._reader.machine()
        devices, self._others = await self._reader.call(self._devices, self._machine, held_mib, lease_pids)
        return devices

    @property
    def other_programs(self) -> str:
        """What other programs used of the GPUs when `devices` read the machine; "" if it was little."""
        return self._others

    async def demand(self, model_id: str, devices: Sequence[Device]) -> Demand:
        """Return what a model needs, by the last reading of the machine.

        Raises NoSuchModel and what `plan_demand` raises.
        """
        machine = self._machine or await self._reader.machine()
        return await self._reader.call(self._demand, model_id, machine, devices)

    async def light_demands(self, devices: Sequence[Device]) -> tuple[Demand, ...]:
        """Return what each registered embedding, reranking or classification model needs, if it can run here."""
        machine = self._machine or await self._reader.machine()
        return await self._reader.call(self._light_demands, machine, devices)

    async def files_to_read_ahead(self, model_id: str) -> tuple[str, ...]:
        """Return a model's files; none if RAM is too short to keep them in the page cache until they are used."""
        machine = self._machine or await self._reader.machine()
        return await self._reader.call(self._read_ahead, model_id, machine)

    async def remember(self, launch: Launch, refusal: Refusal) -> None:
        """Record what the engine refused, so that later launches leave it out. Raises StorageFailed."""
        await self._reader.call(self._refused.remember, launch.model_id, launch.title, refusal.subjects, refusal.output)

    def _plan(self, model_id: str, machine: Machine, allocation: Allocation | None) -> Launch:
        return plan_launch(self._registry.get(model_id), machine, self._settings(), allocation)

    def _demand(self, model_id: str, machine: Machine, devices: Sequence[Device]) -> Demand:
        return plan_demand(self._registry.get(model_id), machine, self._settings(), devices)

    def _devices(
        self, machine: Machine, held_mib: Mapping[str, int], lease_pids: Collection[int]
    ) -> tuple[tuple[Device, ...], str]:
        from mmd.control.state.leases import with_children
        from mmd.plan.placement.devices import devices_of, other_programs

        pids, safe_maximum = with_children(lease_pids), self._settings().gpu.safe_maximum
        devices = devices_of(machine, held_mib, safe_maximum=safe_maximum, lease_pids=pids)
        return devices, other_programs(machine, held_mib, pids)

    def _pinned(self) -> frozenset[str]:
        from mmd.control.lifecycle.idle_rules import pinned_models

        return pinned_models(self._settings())

    def _is_one_each(self) -> bool:
        return self._settings().gpu.residency == "one"

    def _settings(self) -> Settings:
        """Return what mmd.toml says now: a gateway that runs for weeks must plan as the command line does.

        A swap asks several times, and reading takes half a millisecond: only a changed file is read again.
        """
        from mmd.paths import config_file
        from mmd.settings import read_settings

        try:
            now = config_file().stat()
        except OSError:
            return read_settings()
        written = now.st_ino, now.st_size, now.st_mtime_ns
        if self._read is None or self._read[0] != written:
            self._read = written, read_settings()
        return self._read[1]

    def _light_demands(self, machine: Machine, devices: Sequence[Device]) -> tuple[Demand, ...]:
        from mmd.control.memory.estimate import Estimator

        settings = self._settings()
        estimator = Estimator(machine, settings)

        def plan(model: Model) -> Demand:
            return plan_demand(model, machine, settings, devices, estimator)

        return self._light.demands(self._registry.all(), machine, settings, devices, plan)

    def _read_ahead(self, model_id: str, machine: Machine) -> tuple[str, ...]:
        from mmd.control.lifecycle.read_ahead import worthwhile

        model = self._registry.get(model_id)
        fits = worthwhile(model.facts.weights_bytes, machine.ram_available_bytes, machine.ram_total_bytes)
        return model.files if fits else ()


def plan_launch(model: Model, machine: Machine, settings: Settings, allocation: Allocation | None = None) -> Launch:
    """Plan how a registered model runs on a machine with the engines that are installed here. It blocks, since it may
    run programs, and writes nothing.

    Raises EngineMissing, DoesNotFit, and BadModelFile if its files are gone.
    """
    from mmd.control.models.installed_engines import installed_engines
    from mmd.engines import missing
    from mmd.paths import cache_dir, engine_socket
    from mmd.plan.choose import choose
    from mmd.registry.store import require_files

    require_files(model)
    if allocation is None and len(machine.gpus) > 1:
        allocation = _alone(model, machine, settings)
    return choose(
        model,
        machine,
        installed_engines(settings),
        socket=str(engine_socket(model.id)),
        cache=str(cache_dir()),
        settings=_model_settings(model, settings),
        projector_bytes=_projector_bytes(model),
        allocation=allocation,
        missing=missing,
    )


def plan_demand(
    model: Model,
    machine: Machine,
    settings: Settings,
    devices: Sequence[Device],
    estimator: Estimator | None = None,
) -> Demand:
    """Return what a registered model needs of these devices. It blocks as `plan_launch` does, and raises the same.

    `estimator` is one for this machine and these settings, if there is one already.
    """
    from mmd.control.memory.estimate import Estimator
    from mmd.control.models.installed_engines import installed_engines
    from mmd.engines import missing
    from mmd.plan.needs import demand_of
    from mmd.registry.store import require_files

    require_files(model)
    installed = installed_engines(settings)
    constants, measured_on = (estimator or Estimator(machine, settings)).best_constants(model, installed)
    return demand_of(
        model,
        machine,
        installed,
        devices,
        settings=_model_settings(model, settings),
        projector_bytes=_projector_bytes(model),
        constants=constants,
        measured_on=measured_on,
        missing=missing,
    )


def _alone(model: Model, machine: Machine, settings: Settings) -> Allocation | None:
    """Return what a model is given if it lies alone on its GPUs; None if they cannot hold it."""
    from dataclasses import replace

    from mmd.plan.placement.arrange import Arrangement, arrange
    from mmd.plan.placement.devices import empty_devices
    from mmd.plan.share import device_ids

    devices = empty_devices(machine)
    found = arrange([plan_demand(model, machine, settings, devices)], (), devices)
    if not isinstance(found, Arrangement):
        return None
    free_mib = {device: gpu.free_bytes // MIB for device, gpu in device_ids(machine.gpus).items()}
    return replace(found.allocations[model.id], free_mib=free_mib)


def _model_settings(model: Model, settings: Settings) -> ModelSettings:
    from mmd.control.models.aliases import candidate_aliases
    from mmd.plan.choose import ModelSettings

    table = settings.model(model.id)
    return ModelSettings(
        engine=table.engine,
        context=table.context,
        ready_seconds=table.ready_seconds,
        arguments=table.arguments,
        aliases=candidate_aliases(model, settings),
        refused=RefusedFlags().refused(model.id),
    )


def _projector_bytes(model: Model) -> int:
    return Path(model.projector).stat().st_size if model.projector else 0
