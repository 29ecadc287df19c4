"""The VRAM that processes hold in the state of the fake NVML, which tests/fakes/nvml.c documents.

Every change is made under one lock. Where the state says "lags", with the number of changes so far, each increase is
checked at once: more memory than a GPU has is an over-commit, which a sampler could miss. There the driver keeps the
memory of a dead process until tests/fakes/driver.py removes it.
"""

# ruff: noqa: PTH105, PTH123
from __future__ import annotations

import fcntl
import os

TYPE_CHECKING = False  # see engine.py
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

MIB = 1024**2


def hold(pid: int, held_bytes: Mapping[str, int]) -> str:
    """Let a process hold so much of each GPU from now on, and nothing of the others; return the over-commit, or "".

    A GPU is named by its UUID or the start of it; "" is the first one. Does nothing without a fake NVML.
    """
    over: list[str] = []

    def change(lines: list[str]) -> None:
        over.extend(_hold(lines, pid, held_bytes))

    rewrite(change)
    return "; ".join(over)


def rewrite(change: Callable[[list[str]], None], path: str = "") -> None:
    """Change the lines of the state under its lock."""
    if not (path := path or os.environ.get("MMD_FAKE_NVML", "")):
        return
    lock = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with open(path, encoding="ascii") as file:
            before = file.read()
        lines = before.splitlines()
        change(lines)
        after = "\n".join(lines) + "\n"
        if after != before:
            with open(f"{path}.new", "w", encoding="ascii") as file:
                file.write(after)
            os.replace(f"{path}.new", path)
    finally:
        os.close(lock)


def gpu_lines(lines: list[str]) -> list[int]:
    """Return the numbers of the lines that are GPUs."""
    return [number for number, line in enumerate(lines) if line[:1].isdigit()]


def gpu_count() -> int:
    """Return how many GPUs the fake NVML has; 0 without it."""
    if not (path := os.environ.get("MMD_FAKE_NVML", "")):
        return 0
    with open(path, encoding="ascii") as file:
        return len(gpu_lines(file.read().splitlines()))


def held_by(lines: list[str]) -> list[dict[int, int]]:
    """Return what each process holds of each GPU in bytes, by its pid, without what the driver does not tell."""
    return [
        {
            int(pid): int(size)
            for pid, _, size in (word.lstrip("@+%!").partition(":") for word in lines[number].split()[1:])
            if size.isdigit()
        }
        for number in gpu_lines(lines)
    ]


def _hold(lines: list[str], pid: int, held_bytes: Mapping[str, int]) -> list[str]:
    cards = [line.split(None, 4) for line in lines if line.startswith("card ")]
    lag = next((number for number, line in enumerate(lines) if line.startswith("lags ")), None)
    mark = "@" if lag is None else "+"
    if lag is not None:
        lines[lag] = f"lags {int(lines[lag].split()[1]) + 1}"
    over = []
    for index, number in enumerate(gpu_lines(lines)):
        uuid = cards[index][1] if cards else ""
        wanted = [size for name, size in held_bytes.items() if (uuid.startswith(name) if name else index == 0)]
        used, *processes = lines[number].split()
        others = [word for word in processes if not word.startswith(f"{mark}{pid}:")]
        mine = [f"{mark}{pid}:{sum(wanted)}"] if wanted else []
        lines[number] = " ".join([used, *others, *mine])
        total = int(cards[index][2]) if cards and mark == "+" else 0
        sum_bytes = int(used) + sum(int(word.partition(":")[2]) for word in [*others, *mine] if word[0] == "+")
        if total and sum(wanted) and sum_bytes > total:
            over.append(f"{sum_bytes // MIB} of {total // MIB} MiB of {uuid}: {lines[number]}")
    return over
