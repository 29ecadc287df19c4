"""The memory that one launch is given: its share of each device, its context, and whether it shares its devices."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from mmd.machine import Gpu, Machine
from mmd.plan.share import RAM, Share
from mmd.quantities import MIB


@dataclass(frozen=True, slots=True)
class Allocation:
    """The memory that placement gives to one launch. `free_mib` has each device of the share that is a GPU."""

    share: Share
    tokens: int | None = None  # the context; None if the engine takes what fits into its share
    is_alone: bool = True  # its devices have, and get, no other model: the engine may take all that is free
    free_mib: Mapping[str, int] = field(default_factory=dict)  # when it loads
    cache_mib: int | None = None  # of each device, for keys and values; None: the engine's formulas decide
    divided_mib: Mapping[str, int] = field(default_factory=dict)  # by device: the part that has any ratio, like layers

    def machine(self, machine: Machine) -> Machine:
        """Return the machine with the GPUs of the share only.

        What is free on them is what the launch may take: all of it if it is alone, else its share.
        """
        given = ((gpu, self.device_of(gpu)) for gpu in machine.gpus)
        return replace(machine, gpus=tuple(self._given(gpu, device) for gpu, device in given if device is not None))

    def is_on(self, machine: Machine, *, on_gpu: bool) -> bool:
        """True if the machine still has these devices, and they are of the kind that the engine uses."""
        if not on_gpu:
            return set(self.share) == {RAM}
        found = [gpu for gpu in machine.gpus if self.device_of(gpu) is not None]
        return bool(self.share) and len(found) == len(self.share)

    def device_of(self, gpu: Gpu) -> str | None:
        """Return the name of a GPU in the share, which may be the start of its UUID; None if it is not there."""
        return next((device for device in self.share if gpu.uuid.startswith(device)), None)

    def _given(self, gpu: Gpu, device: str) -> Gpu:
        share_mib = self.share[device]
        free_mib = self.free_mib.get(device, share_mib) if self.is_alone else share_mib
        return replace(gpu, free_bytes=min(gpu.total_bytes, free_mib * MIB))
