"""ExecStopPost= of a lease's token: exits when the driver has freed the memory of processes that have ended.

    lease_released.py [PID]

The lease counts in the ledger until its token is down, so no model loads onto memory that the driver still counts. If
`mmd lease end` ended the lease, its program may keep running; the hook does not wait for it.
"""

import os
import sys
from time import monotonic, sleep

sys.path.insert(0, __file__.rpartition("/")[0])  # -I leaves out the script's own folder
from vram import Vram, read_vram

_TIMEOUT_SECONDS = 10.0
_POLL_SECONDS = 0.01
_HOST_NAMESPACE = 0xEFFFFFFC  # the kernel's number of its first PID namespace


def main() -> int:
    vram = read_vram()
    if vram is None:
        return 0
    known = {int(word) for word in sys.argv[1:]}
    end = monotonic() + _TIMEOUT_SECONDS
    while ended := _ended_on_gpu(vram, known):
        if monotonic() > end:
            print(f"The driver still lists processes that have ended: {sorted(ended)}", file=sys.stderr)
            break
        sleep(_POLL_SECONDS)
    return 0


def _ended_on_gpu(vram: Vram, known: "set[int]") -> "set[int]":
    """Return the processes on a GPU that have ended. In another PID namespace than the driver's, only `known` processes
    are looked at.
    """
    return {pid for pid in vram.pids() if (pid in known or _sees_all_processes()) and not _runs(pid)}


def _sees_all_processes() -> bool:
    return os.stat("/proc/self/ns/pid").st_ino == _HOST_NAMESPACE  # noqa: PTH116 pathlib is slow to import


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        return True
    return True


if __name__ == "__main__":
    sys.exit(main())
