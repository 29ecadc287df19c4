"""What an engine itself reports that it would allocate for a model, and how far the formulas are off."""

from __future__ import annotations

from dataclasses import dataclass

from mmd.plan.estimate import Components
from mmd.quantities import MIB


@dataclass(frozen=True, slots=True)
class Row:
    """The memory of one device, or of one kind of host memory. It is told in whole MiB, rounded down."""

    name: str  # "CUDA0", "Host"
    is_device: bool
    model_bytes: int
    context_bytes: int  # keys, values and recurrent states
    compute_bytes: int


@dataclass(frozen=True, slots=True)
class Breakdown:
    rows: tuple[Row, ...]

    @property
    def has_devices(self) -> bool:
        return any(row.is_device for row in self.rows)

    @property
    def decisive(self) -> Row:
        """The sum over the devices; on a machine without any, over the host's memory."""
        return self._sum("devices" if self.has_devices else "host", is_device=self.has_devices)

    @property
    def host_bytes(self) -> int:
        host = self._sum("host", is_device=False)
        return host.model_bytes + host.context_bytes + host.compute_bytes

    def _sum(self, name: str, *, is_device: bool) -> Row:
        rows = [row for row in self.rows if row.is_device is is_device]
        return Row(
            name,
            is_device,
            sum(row.model_bytes for row in rows),
            sum(row.context_bytes for row in rows),
            sum(row.compute_bytes for row in rows),
        )


@dataclass(frozen=True, slots=True)
class Correction:
    """What the engine says otherwise than the formulas do, beyond its rounding to MiB."""

    weights_bytes: int
    kv_bytes: int
    compute_factor: float


def correction(told: Row, formula: Components, rows: int) -> Correction:
    """`told`: the sum of so many rows."""
    kept_bytes = formula.kv_bytes + formula.state_bytes
    compute_bytes = _apart(told.compute_bytes, formula.compute_bytes, rows)
    return Correction(
        weights_bytes=_apart(told.model_bytes, formula.weights_bytes, rows),
        kv_bytes=_apart(told.context_bytes, kept_bytes, rows),
        compute_factor=1 + compute_bytes / formula.compute_bytes if formula.compute_bytes else 1.0,
    )


def _apart(told_bytes: int, formula_bytes: int, rows: int) -> int:
    is_rounding = told_bytes <= formula_bytes < told_bytes + rows * MIB
    return 0 if is_rounding else told_bytes - formula_bytes
