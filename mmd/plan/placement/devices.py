"""The devices of a machine on which models are placed, and how much of each mmd may use."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from mmd.machine import Gpu, GpuProcess, Machine
from mmd.plan import fit
from mmd.plan.placement.place import Device
from mmd.plan.share import RAM, device_ids
from mmd.quantities import MIB, read_size, size_text

# Programs that draw a desktop. They take and release memory at any moment.
DESKTOPS = ("Xorg", "Xwayland", "gnome-shell", "kwin_wayland", "kwin_x11", "sway", "Hyprland", "weston", "plasmashell")

MARGIN_MIB = 256  # of each GPU: the error of the driver's count
DESKTOP_MARGIN_MIB = 1024

# gpu.safe_maximum of mmd.toml: a size for every GPU, or sizes by index or UUID of a GPU, and "ram".
SafeMaximum = str | Mapping[str, str] | None

_MIN_NAMED_MIB = 512  # what other programs use; less is a desktop's

_OUR_UNITS = "mmd-model@"


def devices_of(
    machine: Machine,
    held_mib: Mapping[str, int],
    *,
    safe_maximum: SafeMaximum = None,
    lease_pids: Collection[int] = (),
) -> tuple[Device, ...]:
    """Return every GPU and the RAM, with the capacity for models and leases: what other programs do not use.

    `held_mib` is what models and leases hold of each device. It is subtracted from the memory in use on a GPU whose
    driver does not report each process. `lease_pids` are processes of leases, whose memory is not another program's.
    """
    limits = _limits_mib(safe_maximum, machine.gpus)
    found = [
        Device(device, _at_most(_gpu_capacity_mib(gpu, held_mib.get(device, 0), lease_pids), limits.get(device)))
        for device, gpu in device_ids(machine.gpus).items()
    ]
    ram_mib = fit.ram_budget_bytes(machine) // MIB
    return (*found, Device(RAM, _at_most(ram_mib, limits.get(RAM))))


def other_programs(machine: Machine, held_mib: Mapping[str, int], lease_pids: Collection[int] = ()) -> str:
    """Say how much memory of each GPU other programs use, and which uses most; "" if it is little."""
    found = []
    for device, gpu in device_ids(machine.gpus).items():
        size_mib = foreign_mib(gpu, held_mib.get(device, 0), lease_pids)
        if size_mib < _MIN_NAMED_MIB:
            continue
        others = [one for one in gpu.processes if one.name and not _is_ours(one, lease_pids)]
        largest = max(others, key=lambda one: (one.used_bytes or 0, one.name), default=None)
        most = f", {largest.name} most of it" if largest is not None else ""
        found.append(f"{size_text(size_mib * MIB)} of {device}{most}")
    return f"other programs use {' and '.join(found)}" if found else ""


def empty_devices(machine: Machine) -> tuple[Device, ...]:
    """Return the devices as if no other program used them."""
    gpus = [Device(device, gpu.total_bytes // MIB - MARGIN_MIB) for device, gpu in device_ids(machine.gpus).items()]
    return (*gpus, Device(RAM, fit.ram_budget_bytes(machine) // MIB))


def has_desktop(gpu: Gpu) -> bool:
    return any(process.name in DESKTOPS for process in gpu.processes)


def foreign_mib(gpu: Gpu, held_mib: int, lease_pids: Collection[int] = ()) -> int:
    """Return the MiB of a GPU that other programs use, the driver's reserve included."""
    used_bytes = gpu.total_bytes - gpu.free_bytes
    return -(-max(0, used_bytes - _ours_bytes(gpu, held_mib, lease_pids)) // MIB)


def _ours_bytes(gpu: Gpu, held_mib: int, lease_pids: Collection[int]) -> int:
    """Return the bytes that models and leases use, or hold, if the driver does not report each process.

    The driver lists a process for some milliseconds after its end, when its unit can no longer be read. Such memory
    counts as theirs, up to what they hold.
    """
    ours = [one for one in gpu.processes if _is_ours(one, lease_pids)]
    ended = [one for one in gpu.processes if not one.name and not one.unit and one not in ours]
    if not gpu.processes or any(one.used_bytes is None for one in (*ours, *ended)):
        return held_mib * MIB
    seen_bytes, unseen_bytes = (sum(one.used_bytes or 0 for one in some) for some in (ours, ended))
    return seen_bytes + min(unseen_bytes, max(0, held_mib * MIB - seen_bytes))


def _is_ours(process: GpuProcess, lease_pids: Collection[int]) -> bool:
    return process.unit.startswith(_OUR_UNITS) or process.pid in lease_pids


def _gpu_capacity_mib(gpu: Gpu, held_mib: int, lease_pids: Collection[int]) -> int:
    margin_mib = DESKTOP_MARGIN_MIB if has_desktop(gpu) else MARGIN_MIB
    return max(0, gpu.total_bytes // MIB - foreign_mib(gpu, held_mib, lease_pids) - margin_mib)


def _limits_mib(setting: SafeMaximum, gpus: Iterable[Gpu]) -> dict[str, int]:
    """Return the limit of each device that the setting names; a single size is the limit of every GPU."""
    if setting is None:
        return {}
    found: dict[str, int] = {}
    for device, gpu in device_ids(gpus).items():
        if isinstance(setting, str):
            size: str | None = setting
        else:
            names = (name for name in setting if name == str(gpu.index) or gpu.uuid.lower().startswith(name.lower()))
            size = next((setting[name] for name in names), None)
        if size is not None:
            found[device] = (read_size(size) or 0) // MIB
    if not isinstance(setting, str) and RAM in setting:
        found[RAM] = (read_size(setting[RAM]) or 0) // MIB
    return found


def _at_most(size_mib: int, limit_mib: int | None) -> int:
    return size_mib if limit_mib is None else min(size_mib, limit_mib)
