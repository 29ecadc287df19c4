"""ExecStopPost= of the token of an engine that can sleep: exits only when the engine has released the GPU.

    release.py UNIT SOCKET SECONDS LEVELS WEIGHTS_BYTES RESERVE_BYTES gpu|cpu DEVICE=KEEPS…

It puts the engine to sleep at the level in the record `level`, or else at the first of LEVELS (1,2) for which there is
RAM. It kills the engine instead if the engine is still loading (its socket refuses connections), does not answer, only
claims to sleep, or still has its memory on the GPU after SECONDS. When the engine sleeps, it writes what the engine
keeps of each device (MiB) into `keeps`, for the ledger. A token that was not admitted has nothing to release.

systemd also runs it after an interrupted wake, when it would not run ExecStop=.
"""

import os
import sys
from time import monotonic, sleep

sys.path.insert(0, __file__.rpartition("/")[0])  # -I leaves out the script's own folder
import ledger
import record
from engine import EngineUnit

TYPE_CHECKING = False  # typing itself would have to be imported
if TYPE_CHECKING:
    from collections.abc import Mapping

    from vram import Vram

_POLL_SECONDS = 0.005
_MIB = 1 << 20


class TokenRelease:
    """One release: the engine goes to sleep or is killed, and `ID~release` records which and how long it took."""

    def __init__(self, words: list[str]) -> None:
        unit, path, seconds, levels, weights_bytes, reserve_bytes, device, *keeps = words
        self.engine = EngineUnit(unit=unit, path=path)
        self.folder = record.folder_of(path)
        self.levels = [int(level) for level in levels.split(",")]
        self.weights_bytes = int(weights_bytes)
        self.reserve_bytes = int(reserve_bytes)
        self.keeps = ledger.parse(" ".join(keeps))
        self.began = monotonic()
        self.until = self.began + float(seconds)
        self.level: int | None = None
        self.freed_bytes: int | None = None
        self.sleep_seconds = self.vram_seconds = 0.0
        self.vram = _read_vram(self.keeps) if device == "gpu" else None

    @property
    def was_admitted(self) -> bool:
        """False if the gate refused the token: it must not touch the engine. A token of mmd 0.1 has no gate."""
        has_passed_a_gate = os.path.exists(f"{self.folder}~size")  # noqa: PTH110 pathlib is slow to import
        return not has_passed_a_gate or os.path.exists(f"{self.folder}~gpu/held")  # noqa: PTH110

    def run(self) -> None:
        if not self.was_admitted:
            return
        state = self.engine.state()
        why_not = self.put_to_sleep() if state == "active" else f"it is {state}"
        if why_not:
            self.level = None
            self.stop(state, why_not)
        record.write(
            f"{self.folder}~release",
            record.json_line(
                began=self.began,
                level=self.level,
                sleep_seconds=self.sleep_seconds,
                vram_seconds=self.vram_seconds,
                freed_bytes=self.freed_bytes,
                outcome="stopped" if why_not else "slept",
            ),
        )

    def put_to_sleep(self) -> str:
        """Put the engine to sleep; return "" or the reason why it does not sleep."""
        self.level = self.choose_level()
        if self.level is None:
            return f"RAM is short: {self.weights_bytes} bytes for weights, {self.reserve_bytes} in reserve"
        since = monotonic()
        try:
            # Before the request: an engine that fell asleep half way must be woken as from this level.
            record.write_asleep(self.folder, self.level, since, None)
        except OSError as error:
            return f"its runtime folder does not exist: {error}"
        before = EngineMemory(self.vram, self.engine.pids)
        began = monotonic()
        status = self.engine.post(f"/sleep?level={self.level}&mode=wait", until=self.until)
        says = self.engine.is_sleeping(until=self.until) if status == "200" else None
        self.sleep_seconds = monotonic() - began
        if says is not True:
            return f"/sleep answered {status}" + (" and /is_sleeping false" if says is False else "")
        if why_not := self.wait_for_memory(before):
            return why_not
        if self.freed_bytes is not None:
            record.write_asleep(self.folder, self.level, since, self.freed_bytes)
        return self.write_keeps()

    def write_keeps(self) -> str:
        """Record that the engine sleeps, and what it keeps; return "" or the reason why that is not possible."""
        used_bytes = EngineMemory(self.vram, self.engine.pids).used_bytes or 0
        # The engine may keep more than planned. The sum over all GPUs does not say on which of them.
        extra_mib = max(0, used_bytes // _MIB - sum(self.keeps.values()))
        try:
            ledger.write(f"{self.folder}/keeps", {device: size + extra_mib for device, size in self.keeps.items()})
        except OSError as error:
            return f"its runtime folder does not exist: {error}"
        return ""

    def choose_level(self) -> int | None:
        """Return the level to sleep at; None if there is too little RAM and no other level."""
        requested = record.read(f"{self.folder}/level")
        record.remove(f"{self.folder}/level")
        room_bytes = _available_bytes() - self.reserve_bytes
        # Level 1 keeps the weights in RAM. Those of other sleepers are not in MemAvailable, so they are counted.
        able = (level for level in self.levels if level > 1 or self.weights_bytes <= room_bytes)
        level = int(requested) if requested else next(able, None)
        # An engine with this record was not woken completely, so it has no more weights than at that level.
        asleep = record.asleep_level(self.folder)
        return level if level is None or asleep is None else max(level, asleep)

    def wait_for_memory(self, before: "EngineMemory") -> str:
        """Wait until at least half of the weights have left the GPU; return "" or the reason why they did not."""
        began = monotonic()
        wanted_bytes = self.weights_bytes // 2
        if self.vram is None or not wanted_bytes:
            return ""
        while True:
            after = EngineMemory(self.vram, self.engine.pids)
            self.freed_bytes = after.freed_bytes(before)
            self.vram_seconds = monotonic() - began
            if self.freed_bytes >= wanted_bytes or after.is_below(wanted_bytes):
                return ""
            if monotonic() > self.until:
                return f"it reports sleep but freed {self.freed_bytes} of {self.weights_bytes} bytes of VRAM"
            sleep(_POLL_SECONDS)

    def stop(self, state: str, why: str) -> None:
        # systemd 254 and newer restart a crashed engine together with its token, so this may be that token's release.
        # The engine then starts after this hook, and only if the token is held.
        if state not in ("inactive", "failed") and not self.engine.is_restarted:
            print(f"{self.engine.unit} does not sleep: {why}; it is stopped instead", file=sys.stderr)
            self.engine.end()
        if self.vram is not None:
            self.vram_seconds = self.engine.wait_until_released(self.vram)


class EngineMemory:
    """The memory that an engine has on the GPU now, and what is free there: drivers may not report the former."""

    def __init__(self, vram: "Vram | None", pids: set[int]) -> None:
        self.used_bytes: int | None = vram.used_bytes(pids) if vram else None
        self.free_bytes: int = vram.free_bytes() if vram else 0

    def freed_bytes(self, before: "EngineMemory") -> int:
        if self.used_bytes is None or before.used_bytes is None:
            return max(0, self.free_bytes - before.free_bytes)
        return max(0, before.used_bytes - self.used_bytes)

    def is_below(self, bound_bytes: int) -> bool:
        """True if it has less than its weights need: it left the GPU before, and was not woken completely."""
        return self.used_bytes is not None and self.used_bytes < bound_bytes


def _read_vram(devices: "Mapping[str, int]") -> "Vram | None":
    """Open NVML for these GPUs only: memory that another model frees on another GPU does not prove that this sleeps."""
    from vram import read_vram  # needs ctypes, which only machines with a GPU should wait for

    return read_vram(devices)


def _available_bytes() -> int:
    with open("/proc/meminfo", encoding="ascii") as file:  # noqa: PTH123 pathlib is slow to import
        for line in file:
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return 0


def main() -> int:
    try:
        TokenRelease(sys.argv[1:]).run()
    except BaseException:
        # The next model loads when this hook has exited, even if its arguments are those of an older mmd. The first two
        # have always been the unit and the socket.
        EngineUnit(unit=sys.argv[1], path=sys.argv[2]).end()
        raise
    return 0


if __name__ == "__main__":
    sys.exit(main())
