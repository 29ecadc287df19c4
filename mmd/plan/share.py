"""How much memory a model holds on each device, as numbers and as the text in a unit's Description=.

A device is a GPU, named by the start of its UUID ("GPU-8a3b1c2d"), or the machine's RAM. Sizes are whole MiB.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # not imported at run time: `mmd list` must start fast
    from mmd.machine import Gpu

RAM = "ram"  # the device of models that run on the CPU

Share = Mapping[str, int]  # device -> MiB

_SHORT_UUID_CHARACTERS = len("GPU-") + 8


@dataclass(frozen=True, slots=True)
class Holding:
    """What a model holds: `uses` while it is resident, `keeps` while it is asleep (None if it cannot sleep)."""

    uses: Share
    keeps: Share | None = None

    @property
    def text(self) -> str:
        """The end of a unit's Description=: "has 10240 MiB of GPU-8a3b1c2d, asleep 1280 MiB of GPU-8a3b1c2d"."""
        return f"has {share_text(self.uses)}" + (f", asleep {share_text(self.keeps)}" if self.keeps is not None else "")


def device_ids(gpus: Iterable[Gpu]) -> dict[str, Gpu]:
    """Return the GPUs by device: by the start of their UUIDs, or by the whole UUIDs if that is ambiguous."""
    all_gpus = tuple(gpus)
    short = {gpu.uuid[:_SHORT_UUID_CHARACTERS]: gpu for gpu in all_gpus}
    return short if len(short) == len(all_gpus) else {gpu.uuid: gpu for gpu in all_gpus}


def share_text(share: Share) -> str:
    return " and ".join(f"{size_mib} MiB of {device}" for device, size_mib in sorted(share.items())) or "no memory"


def share_words(share: Share) -> str:
    """Return a share as the hooks read it: "GPU-8a3b1c2d=10240 ram=512"."""
    return " ".join(f"{device}={size_mib}" for device, size_mib in sorted(share.items()))


def read_share_words(words: str) -> dict[str, int]:
    """Read what `share_words` or a hook wrote. Raises ValueError."""
    parts = (word.rpartition("=") for word in words.split())
    return {device: int(size_mib) for device, _, size_mib in parts}


def total_share(shares: Iterable[Share]) -> dict[str, int]:
    """Return the sum of shares."""
    total: dict[str, int] = {}
    for share in shares:
        for device, size_mib in share.items():
            total[device] = total.get(device, 0) + size_mib
    return total


def less(room: Share, *taken: Share) -> dict[str, int]:
    """Return the room without these shares; devices that the room does not have are left out."""
    sizes = total_share(taken)
    return {device: size_mib - sizes.get(device, 0) for device, size_mib in room.items()}


def read_holding(description: str) -> Holding | None:
    """Parse a unit's Description=; return None if it names no share, as in units of mmd 0.1."""
    _, has, sizes = description.partition(" has ")
    if not has:
        return None
    uses, asleep, keeps = sizes.partition(", asleep ")
    return Holding(_read_share(uses), _read_share(keeps) if asleep else None)


def _read_share(text: str) -> dict[str, int]:
    """Parse the text of `share_text`, without the slow import of regular expressions: every command needs this."""
    parts = (part.partition(" MiB of ") for part in text.split(" and "))
    return {device: int(size_mib) for size_mib, _, device in parts if device and size_mib.isdecimal()}
