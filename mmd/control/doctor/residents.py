"""Check what models and leases hold of each device, and that no engine, lease or setting holds more than it may."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from mmd.control.doctor.diagnosis import Diagnosis, failed, ok, warning
from mmd.machine import Gpu
from mmd.plan.lease import LeasePair, LeaseState, lease_id, lease_name
from mmd.plan.placement.place import Device
from mmd.plan.residency import Pair, Residency, held_now, residency
from mmd.plan.share import RAM, Share, device_ids
from mmd.quantities import GIB, MIB, size_text
from mmd.units.names import split, token_unit

# With less than this of a device, hardly any model can be placed on it.
_MIN_CAPACITY_MIB = GIB // MIB


@dataclass(frozen=True, slots=True)
class DeviceHolders:
    """What holds the devices: the input of `check_residents`."""

    pairs: Mapping[str, Pair]
    leases: Mapping[str, LeasePair]
    gpus: Sequence[Gpu]
    devices: Sequence[Device]  # with what models and leases may have of each


def check_residents(here: DeviceHolders) -> Iterator[Diagnosis]:
    found = [*_stranded(here), *_ended_leases(here), *_older_units(here), *_overcommitted(here), *_without_room(here)]
    yield from found or [ok(_summary(here))]


def _stranded(here: DeviceHolders) -> Iterator[Diagnosis]:
    for model_id, pair in sorted(here.pairs.items()):
        if residency(pair) is Residency.STRANDED:
            holds = _share_text(held_now(pair), here)
            message = f"{model_id} is awake without its token, since its release hook was killed: it holds {holds}"
            yield warning(message, f"mmd stop {model_id}   # the next swap ends it, too")


def _ended_leases(here: DeviceHolders) -> Iterator[Diagnosis]:
    for name, lease in sorted(here.leases.items()):
        is_held = lease.token.active == "active" and lease.token.job != "stop"
        if lease.state is LeaseState.ENDING and is_held:
            yield warning(
                f"the program of the lease {name} has ended, but it still holds {_share_text(lease.uses, here)}",
                f"systemctl --user stop {token_unit(lease_id(name))}",
            )


def _older_units(here: DeviceHolders) -> Iterator[Diagnosis]:
    for model_id, pair in sorted(here.pairs.items()):
        if pair.holding is None and pair.engine.loaded and residency(pair) not in (Residency.ABSENT, Residency.FAILED):
            yield warning(
                f"an older mmd started {model_id}, so its units do not say what it holds: it has every device alone",
                f"mmd stop {model_id} && mmd activate {model_id}",
            )


def _overcommitted(here: DeviceHolders) -> Iterator[Diagnosis]:
    total_bytes = {device: gpu.total_bytes for device, gpu in device_ids(here.gpus).items()}
    for device in here.devices:
        holders = {name: share[device.id] for name, share in _shares(here).items() if share.get(device.id)}
        held_bytes = sum(holders.values()) * MIB
        if device.id not in total_bytes or held_bytes <= device.capacity_mib * MIB:
            continue
        largest = max(holders, key=lambda name: holders[name])
        holds = f"models and leases hold {size_text(held_bytes)} of {_name(device.id, here)}"
        lease = lease_name(largest)
        stop = f"mmd stop {largest}" if lease is None else f"mmd lease end {lease}"
        hint = f"{stop}   # the largest of: {', '.join(sorted(holders))}"
        if held_bytes > total_bytes[device.id]:
            yield failed(f"{holds}, which has only {size_text(total_bytes[device.id])}", hint)
        else:
            yield warning(f"{holds}, of which other programs leave only {size_text(device.capacity_mib * MIB)}", hint)


def _without_room(here: DeviceHolders) -> Iterator[Diagnosis]:
    """Warn of a GPU on which no model fits, even if all models are unloaded."""
    for device in here.devices:
        if device.id != RAM and device.capacity_mib < _MIN_CAPACITY_MIB:
            left = size_text(device.capacity_mib * MIB)
            yield warning(
                f"other programs, the margin and gpu.safe_maximum leave models {left} of {_name(device.id, here)}",
                "mmd status   # what other programs use; the settings: man mmd.toml",
            )


def _summary(here: DeviceHolders) -> str:
    parts = []
    for device in here.devices:
        held_mib = sum(share.get(device.id, 0) for share in _shares(here).values())
        if held_mib:
            capacity = size_text(device.capacity_mib * MIB)
            parts.append(f"{size_text(held_mib * MIB)} of {capacity} on {_name(device.id, here)}")
    text = f"models and leases hold {', '.join(parts)}" if parts else "no model or lease holds memory"
    unknown = any(process.used_bytes is None and split(process.unit) for gpu in here.gpus for process in gpu.processes)
    return f"{text}; the driver does not report use per process" if unknown else text


def _shares(here: DeviceHolders) -> dict[str, Share]:
    models = {model_id: held_now(pair) for model_id, pair in here.pairs.items()}
    leases = {lease_id(name): lease.uses or {} for name, lease in here.leases.items() if not lease.is_over}
    return models | leases


def _share_text(share: Share | None, here: DeviceHolders) -> str:
    parts = [
        f"{size_text(size_mib * MIB)} of {_name(device, here)}" for device, size_mib in sorted((share or {}).items())
    ]
    return " and ".join(parts) or "memory"


def _name(device: str, here: DeviceHolders) -> str:
    gpu = device_ids(here.gpus).get(device)
    return "RAM" if device == RAM else f"GPU {gpu.index}" if gpu is not None else device
