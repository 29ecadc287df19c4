"""Child processes that end with their parent, even if that is killed."""

from __future__ import annotations

import ctypes
import signal

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)  # loaded here: between fork() and exec() it may not be


def end_with_parent() -> None:
    """Have the kernel kill this process when its parent ends. In a new child, or as a `preexec_fn`."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
