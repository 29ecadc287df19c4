"""sd_notify(3) without a library."""

from __future__ import annotations

import os
import socket


def notify(state: str) -> None:
    """Tells systemd `READY=1` and the like; does nothing where nobody listens."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):  # abstract
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as messenger:
        messenger.sendto(state.encode(), address)
