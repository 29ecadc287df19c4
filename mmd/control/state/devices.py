"""How much memory of each device is in use, and by whom: models, leases, or other programs."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from mmd.errors import MmdError
from mmd.machine import Gpu, Machine
from mmd.plan.placement.devices import SafeMaximum, devices_of
from mmd.plan.placement.occupancy import held
from mmd.plan.placement.place import Device
from mmd.plan.pressure import Ram
from mmd.plan.share import RAM, Share, device_ids
from mmd.quantities import MIB
from mmd.settings import read_settings
from mmd.units.names import split
from mmd.units.watch import Leases, Pairs

Bytes = Mapping[str, int]  # by device


@dataclass(frozen=True, slots=True)
class DeviceUse:
    """A GPU, or the RAM, which holds the models that run on the CPU. Models and leases may hold `capacity_bytes`
    together; they hold `held_bytes`, and use `mmd_bytes` of that. `others_bytes` is what other programs use.
    """

    id: str  # as in the records of models: the start of the GPU's UUID, or "ram"
    name: str
    index: int | None  # of the GPU, as in nvidia-smi; null for RAM
    total_bytes: int
    capacity_bytes: int
    held_bytes: int
    mmd_bytes: int
    others_bytes: int
    free_bytes: int


def held_bytes(share: Share) -> Bytes:
    return {device: size_mib * MIB for device, size_mib in share.items()}


def measured_bytes(gpus: Iterable[Gpu]) -> dict[str, dict[str, int]]:
    """Return what the driver reports for each model with a process on a GPU, by model and device.

    A model is left out if the driver does not report the memory of one of its processes.
    """
    found: dict[str, dict[str, int]] = {}
    unknown: set[str] = set()
    for device, gpu in device_ids(gpus).items():
        for process in gpu.processes:
            if (name := split(process.unit)) is None:
                continue
            if process.used_bytes is None:
                unknown.add(name[1])
            else:
                by_device = found.setdefault(name[1], {})
                by_device[device] = by_device.get(device, 0) + process.used_bytes
    return {model_id: by_device for model_id, by_device in found.items() if model_id not in unknown}


def device_uses(
    gpus: Iterable[Gpu],
    ram: Ram,
    pairs: Pairs,
    leases: Leases,
    *,
    lease_pids: Collection[int] = (),
    asleep_ram_bytes: int = 0,
    safe_maximum: SafeMaximum = None,
) -> tuple[DeviceUse, ...]:
    """Return the GPUs in the driver's order, then the RAM. `lease_pids` are the programs of leases, as far as they are
    known, `asleep_ram_bytes` the RAM of sleeping models.
    """
    gpus = tuple(gpus)
    models, leased = held(pairs, {}), held({}, leases)
    now = devices_now(gpus, ram, pairs, leases, lease_pids, safe_maximum)
    capacity = {one.id: one.capacity_mib * MIB for one in now}
    uses = [
        _gpu_use(device, gpu, capacity[device], models.get(device, 0) * MIB, leased.get(device, 0) * MIB)
        for device, gpu in device_ids(gpus).items()
    ]
    in_ram = (models.get(RAM, 0) + leased.get(RAM, 0)) * MIB
    used = ram.total_bytes - ram.available_bytes
    mmd_bytes = min(in_ram + asleep_ram_bytes, used)  # pages of a mapped file count as available until they are needed
    others = used - mmd_bytes
    ram_use = DeviceUse(
        RAM, "RAM", None, ram.total_bytes, capacity[RAM], in_ram, mmd_bytes, others, ram.available_bytes
    )
    return (*uses, ram_use)


def devices_now(
    gpus: Iterable[Gpu],
    ram: Ram,
    pairs: Pairs,
    leases: Leases,
    lease_pids: Collection[int] = (),
    safe_maximum: SafeMaximum = None,
) -> tuple[Device, ...]:
    """Return the devices, with what models and leases may hold of each."""
    machine = Machine(tuple(gpus), "", ram.total_bytes, ram.available_bytes, cpu="", cpu_cores=1, cpu_threads=1)
    return devices_of(machine, held(pairs, leases), safe_maximum=safe_maximum, lease_pids=lease_pids)


def configured_safe_maximum() -> SafeMaximum:
    """Return gpu.safe_maximum of mmd.toml; None if that cannot be read, of which all other commands speak."""
    try:
        return read_settings().gpu.safe_maximum
    except MmdError:
        return None


def _gpu_use(device: str, gpu: Gpu, capacity: int, in_models: int, leased: int) -> DeviceUse:
    used = gpu.total_bytes - gpu.free_bytes
    ours = [process.used_bytes for process in gpu.processes if split(process.unit) is not None]
    # A driver that does not report every process: what the models hold is the best figure.
    measured = min(in_models, used) if None in ours else sum(size_bytes or 0 for size_bytes in ours)
    # The program of a lease runs in no unit of mmd: of what other programs use, its share is taken for its own.
    mmd_bytes = min(measured + leased, used)
    return DeviceUse(
        device,
        gpu.name,
        gpu.index,
        gpu.total_bytes,
        capacity,
        in_models + leased,
        mmd_bytes,
        used - mmd_bytes,
        gpu.free_bytes,
    )
