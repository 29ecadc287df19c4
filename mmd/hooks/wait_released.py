"""ExecStopPost= of the token of an engine that cannot sleep: exits only when the engine has released the GPU.

    wait_released.py UNIT SOCKET [end]

systemd has stopped the engine before; the driver may take a moment longer to free its memory. Tokens on a machine
without a GPU do not have this hook. With `end`, which only mmd uses, the hook first kills the engine.
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
    engine.state()  # reads its processes, too
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
