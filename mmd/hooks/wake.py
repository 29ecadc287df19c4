"""ExecStart= of the token of an engine that can sleep: wakes it, and returns when it is awake.

    wake.py UNIT SOCKET

An engine that does not run has nothing to be woken: its own start follows. One that cannot be woken is killed, so
that the next activation starts it cold, and the token fails.
"""

import sys

sys.path.insert(0, __file__.rpartition("/")[0])  # started with -I, which leaves out the script's own folder
from engine import Engine


def main() -> int:
    engine = Engine(unit=sys.argv[1], path=sys.argv[2])
    if engine.state() != "active":
        return 0
    status = engine.post("/wake_up", seconds=60.0)
    if status == "200" and engine.is_sleeping() is False:
        return 0
    print(f"{engine.unit} does not wake: /wake_up answered {status}; it is ended to be started cold", file=sys.stderr)
    engine.end()
    return 1


if __name__ == "__main__":
    sys.exit(main())
