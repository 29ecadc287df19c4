"""ExecStopPost= of an engine with GPU memory: exits only when the driver has freed the memory of its processes.

    wait_released.py UNIT SOCKET [end]

The engine counts in the ledger until its unit is down, and this hook delays that: the next model does not load onto
memory that the driver still counts, and neither does systemd's restart after a crash. With `end`, which only mmd uses,
the hook first kills the engine.
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
        engine.pids = {int(pid) for pid in recorded.split()}  # to ask systemd takes 5 ms, which a swap would wait for
    else:
        engine.state()  # it ended before it was ready: systemd knows at least its main process
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
