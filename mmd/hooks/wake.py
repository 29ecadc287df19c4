"""ExecStart= of the token of an engine that can sleep: wakes it, and returns when it is awake and itself.

    wake.py UNIT SOCKET KIND SECONDS gpu|cpu

KIND is of the canary, SECONDS are for reading the weights again. An engine that does not run has nothing to be woken:
its own start follows. One that cannot be woken, has no room on the GPU any more, or talks otherwise than before is
ended and started cold.
"""

import sys
from time import monotonic

sys.path.insert(0, __file__.rpartition("/")[0])  # started with -I, which leaves out the script's own folder
import record
from engine import EngineUnit
from wake_check import is_same, probe

_WAKE_TIMEOUT_SECONDS = 60.0  # from RAM
_PROBE_TIMEOUT_SECONDS = 20.0
# Level 2 kept no weights. Without the second step vLLM answers 200 to all, and talks garbage.
_FROM_NOTHING = (
    ("/wake_up?tags=weights", b""),
    ("/collective_rpc", b'{"method": "reload_weights"}'),
    ("/wake_up?tags=kv_cache", b""),
)
_FROM_RAM = (("/wake_up", b""),)


def main() -> int:
    unit, path, kind, seconds, device = sys.argv[1:]
    began = monotonic()
    engine = EngineUnit(unit=unit, path=path)
    folder = record.folder_of(path)
    level = record.asleep_level(folder)
    # The record goes with the process. Without one it takes systemctl, and 5 ms, to know whether it runs.
    if level is None and engine.state() != "active":
        return 0
    why_not = (device == "gpu" and _lacks_room(folder)) or _wake(engine, level or 1, float(seconds))
    wake_seconds = monotonic() - began
    why_not = why_not or _check(engine, folder, kind)
    canary_seconds = monotonic() - began - wake_seconds
    if why_not:
        if engine.state() != "active":
            return 0  # it has just died
        print(f"{unit} does not wake: {why_not}; it is ended and started cold", file=sys.stderr)
        _end(engine, device)
        engine.start_after_token()
    else:
        record.remove(f"{folder}/asleep")
    phases = record.json_line(
        began=began,
        wake_seconds=wake_seconds,
        canary_seconds=canary_seconds,
        level=level,
        outcome="cold" if why_not else "woke",
    )
    record.write(f"{folder}~wake", phases)
    return 0


def _lacks_room(folder: str) -> str:
    """ "" or why it would run out of memory and die: somebody else, a game, has what it left. A cold start is planned
    for what there is.
    """
    needs_bytes = record.freed_bytes(folder)
    if not needs_bytes:
        return ""
    from vram import read_vram  # ctypes: 3 ms

    vram = read_vram()
    free_bytes = vram.free_bytes() if vram else needs_bytes
    return "" if free_bytes >= needs_bytes else f"it needs {needs_bytes} bytes of VRAM, and {free_bytes} are free"


def _wake(engine: EngineUnit, level: int, reload_seconds: float) -> str:
    """ "" or why it is not awake."""
    until = monotonic() + (_WAKE_TIMEOUT_SECONDS if level == 1 else reload_seconds)
    for target, body in _FROM_RAM if level == 1 else _FROM_NOTHING:
        if (status := engine.post(target, body, until=until)) != "200":
            return f"{target} answered {status}"
    match engine.is_sleeping(until=until):
        case False:
            return ""
        case True:
            return "/wake_up answered 200, and /is_sleeping says that it sleeps"
        case _:
            return "/is_sleeping says nothing"


def _check(engine: EngineUnit, folder: str, kind: str) -> str:
    """ "" or why it is not the model that it was when it had just been loaded."""
    why_not: str
    fingerprint, why_not = probe(
        engine.path, folder.rpartition("/")[2], kind, until=monotonic() + _PROBE_TIMEOUT_SECONDS
    )
    recorded = record.read(f"{folder}/canary")
    if not why_not and recorded and not is_same(fingerprint, recorded):
        why_not = f"it says {fingerprint[:80]} where it used to say {recorded[:80]}"
    return why_not


def _end(engine: EngineUnit, device: str) -> None:
    engine.end()
    if device == "gpu":
        from vram import read_vram  # ctypes, and only where something went wrong

        if vram := read_vram():
            engine.wait_until_released(vram)


if __name__ == "__main__":
    sys.exit(main())
