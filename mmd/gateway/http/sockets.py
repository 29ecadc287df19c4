"""The sockets the gateway listens on: systemd's, or its own."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from mmd.control.install.addresses import host_port, resolve_host
from mmd.errors import MmdError, WrongUsage
from mmd.gateway.http.listener_kind import ListenerKind
from mmd.gateway.http.origins import is_loopback_address

_FIRST_INHERITED = 3  # sd_listen_fds(3)
_BACKLOG = 1024


class AddressTaken(MmdError):
    """Somebody else listens there."""

    def __init__(self, host: str, port: int) -> None:
        super().__init__(f"port {port} of {host} is taken", hint=f"ss -ltnp 'sport = :{port}'   # see by whom")
        self.port = port


@dataclass(frozen=True, slots=True)
class Listener:
    kind: ListenerKind
    socket: socket.socket

    @property
    def is_exposed(self) -> bool:
        """Whether other machines reach it."""
        return self.kind is not ListenerKind.LOCAL and not is_loopback_address(str(self.socket.getsockname()[0]))

    def __str__(self) -> str:
        name = self.socket.getsockname()
        return str(name) if self.kind is ListenerKind.LOCAL else host_port(str(name[0]), name[1])


def inherited_listeners() -> list[Listener]:
    """Those that systemd passes, each told by its name; none where it passes none."""
    # Taken out of the environment: they are meant for this process, not for one it starts.
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
    """By family first: a Unix socket that somebody has added by a drop-in is not to be taken for a TCP address."""
    if listening.family == socket.AF_UNIX:
        return ListenerKind.LOCAL
    return ListenerKind.EMBEDDING if name == ListenerKind.EMBEDDING else ListenerKind.MAIN


def bind_tcp(host: str, port: int, kind: ListenerKind = ListenerKind.MAIN) -> Listener:
    """One of our own. Raises WrongUsage where the host is no address, MmdError where the port is taken."""
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
    """A Unix socket of our own, for this user only. Raises MmdError where another process listens there."""
    if is_listened_on(path):
        raise MmdError(f"{path} is another gateway's", hint=f"ss -lxp src {path}   # see whose")
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    umask = os.umask(0o177)  # bind() makes the file, and until a chmod() others could connect
    try:
        path.unlink(missing_ok=True)
        listening.bind(str(path))
        listening.listen(_BACKLOG)
    except OSError as error:
        listening.close()
        raise MmdError(f"cannot listen on {path}: {error.strerror}", hint=f"ls -ld {path.parent}") from error
    finally:
        os.umask(umask)
    listening.setblocking(False)
    return Listener(ListenerKind.LOCAL, listening)


def is_listened_on(path: Path) -> bool:
    """Whether a process has this Unix socket. Asked by a socket of another type, which cannot connect: systemd would
    take a connection for a reason to start the gateway.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
        return probe.connect_ex(str(path)) == errno.EPROTOTYPE


def first_exposed(addresses: Iterable[str]) -> str | None:
    """The first of these that other machines reach."""
    return next((one for one in addresses if not is_loopback_address(one.rpartition(":")[0].strip("[]"))), None)


def local_address(address: str) -> str:
    """HOST:PORT as one asks it on this machine: nobody's Host is 0.0.0.0, and the gateway does not answer for it."""
    host, _, port = address.rpartition(":")
    return {"0.0.0.0": f"127.0.0.1:{port}", "[::]": f"[::1]:{port}"}.get(host, address)


def keys_required(address: str) -> WrongUsage:
    message = f"{address} can be reached from other machines, and the gateway has no API keys"
    return WrongUsage(message, hint="mmd key add NAME   # or listen on 127.0.0.1 only")


def _cannot_listen(host: str, port: int, error: OSError) -> MmdError:
    if error.errno == errno.EADDRINUSE:
        return AddressTaken(host, port)
    return MmdError(f"cannot listen on {host}:{port}: {error.strerror}", hint="mmd gateway --listen 127.0.0.1:8000")
