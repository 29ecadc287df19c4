"""Who is at the other end of a Unix socket."""

from __future__ import annotations

import logging
import os
import socket
import struct

_log = logging.getLogger(__name__)

_UCRED = struct.Struct("3i")  # pid, uid, gid: unix(7), SO_PEERCRED


def is_other_user(connected: socket.socket) -> bool:
    """Whether, by the kernel's word, somebody is there who is neither the user that we are nor root."""
    pid, uid, _ = _UCRED.unpack(connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    if uid in (0, os.geteuid()):
        return False
    _log.warning("user %d may not use the gateway's Unix socket (process %d)", uid, pid)
    return True
