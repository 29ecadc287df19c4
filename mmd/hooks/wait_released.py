"""ExecStopPost= of an engine with GPU memory: exits only when the driver has freed the memory of its processes.

    wait_released.py UNIT SOCKET [end]

The engine counts in the ledger until its unit is down, and this hook delays that: neither the next model nor a restart
after a crash loads onto memory that the driver still counts. With `end`, which only mmd uses, the hook first kills the
engine.
"""

import sys
from time import monotonic

sys.path.insert(0, __file__.rpartition("/")[0])  # -I leaves out the script's own folder
import record
from engine import EngineUnit
from vram import read_vram


def main() -> int:
    began = monotonic()
    engine = EngineUnit(unit=sys.argv[1], path=sys.argv[2])
    recorded = record.read(f"{record.folder_of(engine.path)}/pids")
    if recorded and sys.argv[3:] != ["end"]:
        engine.pids = {int(pid) for pid in recorded.split()}  # asking systemd would delay the swap by 5 ms
    else:
        engine.state()  # without a record it ended before it was ready: systemd knows its main process
    if sys.argv[3:] == ["end"]:
        engine.end()
    vram = read_vram()
    seconds = engine.wait_until_released(vram) if vram else 0.0
    phases = record.json_line(
        began=began, level=None, sleep_seconds=0.0, vram_seconds=seconds, freed_bytes=None, outcome="stopped"
    )
    record.write(f"{record.folder_of(engine.path)}~release", phases)
    return 0


if __name__ == "__main__":
    sys.exit(main())
