"""The memory of the third engine: weights, keys and values, and its process, in RAM."""

from __future__ import annotations

from dataclasses import dataclass, replace

from mmd.plan import fit
from mmd.plan.constants import Constants
from mmd.plan.estimate import Components
from mmd.plan.memory import DeviceBytes, MemoryModel, MemorySplit, Variant


@dataclass(frozen=True, slots=True)
class ThirdMemory:
    weights_bytes: int
    kv_bytes_per_token: int
    ram_bytes: int
    constants: Constants
    wanted_context: int = 0

    def components(self, context: int) -> Components:
        kv_bytes = context * self.kv_bytes_per_token
        return Components(self.weights_bytes, kv_bytes, 0, 0, 0, self.constants.process_bytes)

    def error_bytes(self, components: Components) -> int:
        return self.constants.process_error_bytes

    def has_bytes(self) -> int:
        return self.ram_bytes

    def min_bytes(self, context: int) -> int:
        return self.components(context).total_bytes

    def on_devices(self, context: int, error_bytes: int) -> DeviceBytes:
        components = self.components(context)
        return DeviceBytes(components.total_bytes + error_bytes, components.kv_bytes)

    def placement(self, context: int) -> MemorySplit:
        return MemorySplit(self.components(context), self.is_whole(context), on_gpu=0.0, ram_bytes=0)

    def is_whole(self, context: int) -> bool:
        return self.min_bytes(context) <= self.ram_bytes

    def max_context(self, trained: int) -> int:
        return fit.largest_context(trained, self.is_whole)

    def with_8_bit_cache(self) -> Variant | None:
        return None

    def with_experts_in_ram(self, context: int) -> Variant | None:
        return None

    def with_weights(self, share: float) -> MemoryModel:
        return replace(self, weights_bytes=round(self.weights_bytes * share))
