"""The sockets that the gateway listens on, inherited from systemd or bound by itself, and who connects to them."""

from __future__ import annotations

import errno
import logging
import os
import socket
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from mmd.control.install.addresses import host_port, resolve_host
from mmd.errors import CannotListen, WrongUsage
from mmd.gateway.http.listener_kind import ListenerKind
from mmd.gateway.http.origins import is_loopback_address

_FIRST_INHERITED = 3  # sd_listen_fds(3)
_BACKLOG = 1024
_UCRED = struct.Struct("3i")  # pid, uid, gid: unix(7), SO_PEERCRED

_log = logging.getLogger(__name__)


class AddressTaken(CannotListen):
    """Another process listens on this address."""

    def __init__(self, message: str, *, hint: str, port: int = 0) -> None:
        super().__init__(message, hint=hint)
        self.port = port


@dataclass(frozen=True, slots=True)
class Listener:
    """A listening socket, owned and closed by its creator."""

    kind: ListenerKind
    socket: socket.socket

    @property
    def is_exposed(self) -> bool:
        """True if other machines can connect."""
        return self.kind is not ListenerKind.LOCAL and not is_loopback_address(str(self.socket.getsockname()[0]))

    def __str__(self) -> str:
        name = self.socket.getsockname()
        return str(name) if self.kind is ListenerKind.LOCAL else host_port(str(name[0]), name[1])


def inherited_listeners() -> list[Listener]:
    """Return the sockets that systemd passed, identified by their names; empty if it passed none."""
    # Popped from the environment: child processes must not take the descriptors for theirs.
    listener_count = int(os.environ.pop("LISTEN_FDS", "0"))
    addressee = os.environ.pop("LISTEN_PID", "")
    names = os.environ.pop("LISTEN_FDNAMES", "").split(":")
    if addressee != str(os.getpid()):
        return []
    sockets = [socket.socket(fileno=_FIRST_INHERITED + index) for index in range(listener_count)]
    for one in sockets:
        one.set_inheritable(False)
        one.setblocking(False)
    names += [""] * (listener_count - len(names))
    return [Listener(_kind(one, name), one) for one, name in zip(sockets, names, strict=False)]


def _kind(listening: socket.socket, name: str) -> ListenerKind:
    """Decide by address family first: a Unix socket added by a drop-in has any name and no TCP address."""
    if listening.family == socket.AF_UNIX:
        return ListenerKind.LOCAL
    return ListenerKind.EMBEDDING if name == ListenerKind.EMBEDDING else ListenerKind.MAIN


def bind_tcp(host: str, port: int, kind: ListenerKind = ListenerKind.MAIN) -> Listener:
    """Listen on HOST:PORT. Raises WrongUsage if the host is not an address, AddressTaken or MmdError if it fails."""
    family, address = resolve_host(host, port)
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((address, port))
        listening.listen(_BACKLOG)
    except OSError as error:
        listening.close()
        raise _cannot_listen(host, port, error) from error
    listening.setblocking(False)
    return Listener(kind, listening)


def bind_unix(path: Path) -> Listener:
    """Listen on a Unix socket that only this user can open. Raises CannotListen."""
    if is_listened_on(path):
        raise CannotListen(f"{path} belongs to another gateway", hint=f"ss -lxp src {path}   # shows which")
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    umask = os.umask(0o177)  # bind() creates the file; a later chmod() would leave it open to others for a moment
    try:
        path.unlink(missing_ok=True)
        listening.bind(str(path))
        listening.listen(_BACKLOG)
    except OSError as error:
        listening.close()
        raise CannotListen(f"cannot listen on {path}: {error.strerror}", hint=f"ls -ld {path.parent}") from error
    finally:
        os.umask(umask)
    listening.setblocking(False)
    return Listener(ListenerKind.LOCAL, listening)


def is_listened_on(path: Path) -> bool:
    """True if a process listens on this Unix socket.

    The probe is a datagram socket, which cannot connect: a real connection would make systemd start the gateway.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
        return probe.connect_ex(str(path)) == errno.EPROTOTYPE


def is_other_user(connected: socket.socket) -> bool:
    """True if the peer of a Unix socket is neither this user nor root, according to the kernel."""
    pid, uid, _ = _UCRED.unpack(connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    if uid in (0, os.geteuid()):
        return False
    _log.warning("user %d may not use the gateway's Unix socket (process %d)", uid, pid)
    return True


def first_exposed(addresses: Iterable[str]) -> str | None:
    """Return the first HOST:PORT that other machines can reach."""
    return next((one for one in addresses if not is_loopback_address(one.rpartition(":")[0].strip("[]"))), None)


def local_address(address: str) -> str:
    """Return the HOST:PORT to use on this machine: 0.0.0.0 is not a valid Host, so the gateway would refuse it."""
    host, _, port = address.rpartition(":")
    return {"0.0.0.0": f"127.0.0.1:{port}", "[::]": f"[::1]:{port}"}.get(host, address)


def keys_required(address: str) -> WrongUsage:
    message = f"{address} can be reached from other machines, and the gateway has no API keys"
    return WrongUsage(message, hint="mmd key add NAME   # or listen on 127.0.0.1 only")


def _cannot_listen(host: str, port: int, error: OSError) -> CannotListen:
    if error.errno == errno.EADDRINUSE:
        hint = f"ss -ltnp 'sport = :{port}'   # shows by whom"
        return AddressTaken(f"port {port} of {host} is taken", hint=hint, port=port)
    return CannotListen(f"cannot listen on {host}:{port}: {error.strerror}", hint="mmd gateway --listen 127.0.0.1:8000")
