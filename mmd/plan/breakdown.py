"""The memory that an engine reports it would allocate for a model, and its difference from the formulas."""

from __future__ import annotations

from dataclasses import dataclass

from mmd.plan.estimate import Components
from mmd.quantities import MIB


@dataclass(frozen=True, slots=True)
class Row:
    """The memory of one device, or of one kind of host memory. The engine reports whole MiB, rounded down."""

    name: str  # "CUDA0", "Host"
    is_device: bool
    model_bytes: int
    context_bytes: int  # keys, values and recurrent states
    compute_bytes: int


@dataclass(frozen=True, slots=True)
class Breakdown:
    """An engine's report of the memory that it would allocate for one model."""

    rows: tuple[Row, ...]

    @property
    def has_devices(self) -> bool:
        return any(row.is_device for row in self.rows)

    @property
    def decisive(self) -> Row:
        """Return the sum over the devices; without devices, over the host's memory."""
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
    """The difference between the engine's report and the formulas, beyond its rounding to MiB."""

    weights_bytes: int
    kv_bytes: int
    compute_factor: float


def correction(reported: Row, formula: Components, rows: int) -> Correction:
    """Compare a report with the formulas; `reported` is the sum of `rows` rows."""
    context_bytes = formula.kv_bytes + formula.state_bytes
    compute_bytes = _difference(reported.compute_bytes, formula.compute_bytes, rows)
    return Correction(
        weights_bytes=_difference(reported.model_bytes, formula.weights_bytes, rows),
        kv_bytes=_difference(reported.context_bytes, context_bytes, rows),
        compute_factor=1 + compute_bytes / formula.compute_bytes if formula.compute_bytes else 1.0,
    )


def _difference(reported_bytes: int, formula_bytes: int, rows: int) -> int:
    is_rounding = reported_bytes <= formula_bytes < reported_bytes + rows * MIB
    return 0 if is_rounding else reported_bytes - formula_bytes
