"""RAM as the kernel reports it in /proc/meminfo."""

from __future__ import annotations

import re
from pathlib import Path

from mmd.plan.pressure import Ram

MEMORY = Path("/proc/meminfo")


def parse_ram(text: str) -> Ram:
    """/proc/meminfo."""
    found = dict(re.findall(r"^(MemTotal|MemAvailable): +(\d+) kB", text, re.MULTILINE))
    return Ram(int(found["MemAvailable"]) * 1024, int(found["MemTotal"]) * 1024)
