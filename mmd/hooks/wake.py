"""ExecStart= of the token of an engine that can sleep: passes the gate, wakes the engine, and checks the wake.

    wake.py UNIT SOCKET KIND SECONDS gpu|cpu GATE…

GATE are the arguments of gate.py: this hook first does the gate's work, so that one process does both. KIND is the kind
of wake check; SECONDS is the timeout for reading the weights again. If the engine does not run, the hook ends here, and
systemd starts the engine next. The hook kills an engine that cannot be woken, has too little free VRAM, or does not
answer as before its sleep; systemd then starts it cold.
"""

import sys
from time import monotonic

sys.path.insert(0, __file__.rpartition("/")[0])  # -I leaves out the script's own folder
import record
from engine import EngineUnit
from gate import Gate, pass_gate
from wake_check import is_same, probe

_WAKE_TIMEOUT_SECONDS = 60.0  # from RAM
_PROBE_TIMEOUT_SECONDS = 20.0
# Level 2 kept no weights. Without the second step vLLM answers 200 to everything, and generates garbage.
_FROM_NOTHING = (
    ("/wake_up?tags=weights", b""),
    ("/collective_rpc", b'{"method": "reload_weights"}'),
    ("/wake_up?tags=kv_cache", b""),
)
_FROM_RAM = (("/wake_up", b""),)


def main() -> int:
    unit, path, kind, seconds, device, *gate_words = sys.argv[1:]
    # A token of mmd 0.1 has no gate; its model counts as holding the whole machine.
    if gate_words and (refused := pass_gate(gate_words)):
        return refused
    began = monotonic()
    engine = EngineUnit(unit=unit, path=path)
    folder = record.folder_of(path)
    level = record.asleep_level(folder)
    # The record ends with the process. Without a record, systemctl tells in 5 ms whether the engine runs.
    if level is None and engine.state() != "active":
        return 0
    # From here on the ledger counts the whole share, even if this process is killed.
    record.remove(f"{folder}/keeps")
    why_not = (device == "gpu" and _lacks_room(folder, gate_words)) or _wake(engine, level or 1, float(seconds))
    wake_seconds = monotonic() - began
    why_not = why_not or _check(engine, folder, kind)
    canary_seconds = monotonic() - began - wake_seconds
    if why_not:
        if engine.state() != "active":
            return 0  # it has just died
        print(f"{unit} does not wake: {why_not}; it is stopped and started cold", file=sys.stderr)
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


def _lacks_room(folder: str, gate_words: list[str]) -> str:
    """Return "" or the reason why a wake would run out of memory: another program, a game for example, uses what the
    engine freed. A cold start is planned for the memory that is free.
    """
    needs_bytes = record.freed_bytes(folder)
    if not needs_bytes:
        return ""
    from vram import read_vram  # ctypes: 3 ms

    vram = read_vram(Gate(gate_words).needs if gate_words else ())
    free_bytes = vram.free_bytes() if vram else needs_bytes
    return "" if free_bytes >= needs_bytes else f"it needs {needs_bytes} bytes of VRAM, but {free_bytes} are free"


def _wake(engine: EngineUnit, level: int, reload_seconds: float) -> str:
    """Wake the engine; return "" or the reason why it is not awake."""
    until = monotonic() + (_WAKE_TIMEOUT_SECONDS if level == 1 else reload_seconds)
    for target, body in _FROM_RAM if level == 1 else _FROM_NOTHING:
        if (status := engine.post(target, body, until=until)) != "200":
            return f"{target} answered {status}"
    match engine.is_sleeping(until=until):
        case False:
            return ""
        case True:
            return "/wake_up answered 200, but /is_sleeping says that it still sleeps"
        case _:
            return "/is_sleeping does not answer"


def _check(engine: EngineUnit, folder: str, kind: str) -> str:
    """Return "" or the reason why the model answers otherwise than when it had just been loaded."""
    fingerprint, why_not = probe(
        engine.path, folder.rpartition("/")[2], kind, until=monotonic() + _PROBE_TIMEOUT_SECONDS
    )
    recorded = record.read(f"{folder}/canary")
    if not why_not and recorded and not is_same(fingerprint, recorded):
        why_not = f"its wake check gives {fingerprint[:80]} instead of {recorded[:80]}"
    return why_not


def _end(engine: EngineUnit, device: str) -> None:
    engine.end()
    if device == "gpu":
        from vram import read_vram  # needs ctypes, and only after a failure

        if vram := read_vram():
            engine.wait_until_released(vram)


if __name__ == "__main__":
    sys.exit(main())
