"""ExecStop= of the token of an engine that can sleep: returns only when the GPU is free of it.

    release.py UNIT SOCKET SECONDS

It sleeps, or it is stopped: an engine that is still loading (its socket refuses, which is not the same as being
gone), or does not answer, or says that it sleeps and does not.
"""

import sys

sys.path.insert(0, __file__.rpartition("/")[0])  # started with -I, which leaves out the script's own folder
from engine import Engine


def main() -> int:
    engine = Engine(unit=sys.argv[1], path=sys.argv[2])
    state = engine.state()
    if state in ("inactive", "failed"):
        return 0
    if state == "active":
        status = engine.post("/sleep?level=1&mode=wait", seconds=float(sys.argv[3]))
        if status == "200" and engine.is_sleeping() is True:
            return 0
        print(f"{engine.unit} does not sleep: /sleep answered {status}; it is stopped instead", file=sys.stderr)
    engine.end()
    return 0


if __name__ == "__main__":
    sys.exit(main())
