"""Units of measure: sizes that a person reads are binary (MiB, GiB), and so are rates."""

from __future__ import annotations

import re
from collections.abc import Sequence

MIB = 1024**2
GIB = 1024**3

_SIZE = re.compile(r"(\d+(?:\.\d+)?) ?([MGT])(?:i?B)?", re.IGNORECASE)
_UNITS = {"M": MIB, "G": GIB, "T": 1024 * GIB}


def size_text(size_bytes: float) -> str:
    """Return a size as "4.2 GiB"; sizes below 0.1 GiB in MiB."""
    return f"{size_bytes / MIB:.1f} MiB" if size_bytes < GIB // 10 else f"{size_bytes / GIB:.1f} GiB"


def read_size(text: str) -> int | None:
    """Return the bytes of "10G", "15.5 GiB" or "512M"; None for other text. All units are binary, "GB" too."""
    found = _SIZE.fullmatch(text.strip())
    return int(float(found[1]) * _UNITS[found[2].upper()]) if found else None


def rate_text(bytes_per_second: float) -> str:
    """Return a rate as "38 MiB/s", with a decimal below 10."""
    rate = bytes_per_second / MIB
    return f"{rate:.1f} MiB/s" if rate < 10 else f"{rate:.0f} MiB/s"


def count_text(number: int) -> str:
    """Return a number of parameters as "8.2 B" or "135 M"."""
    for unit, size in (("B", 1_000_000_000), ("M", 1_000_000), ("k", 1_000)):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return str(number)


def age_text(seconds: float) -> str:
    """Return a duration in its largest unit: "12 s", "4 min", "3 h", "2 days"."""
    for unit, size in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size * (2 if unit == "days" else 1):
            return f"{seconds // size:.0f} {unit}"
    return f"{seconds:.0f} s"


def clock_text(seconds: float) -> str:
    """Return a duration as "4:05" or "1:04:05"."""
    minutes, seconds = divmod(max(int(seconds), 0), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def median(values: Sequence[float]) -> float:
    """Return the median of at least one value; the statistics module takes 6 ms to import."""
    ordered, half = sorted(values), len(values) // 2
    return ordered[half] if len(values) % 2 else (ordered[half - 1] + ordered[half]) / 2
