"""The sockets the gateway listens on: systemd's, or its own."""

from __future__ import annotations

import errno
import os
import socket
from ipaddress import ip_address

from mmd.errors import MmdError, WrongUsage

_FIRST_INHERITED = 3  # sd_listen_fds(3)
_BACKLOG = 1024


def listening_sockets(listen: tuple[str, int] | None) -> list[socket.socket]:
    """Those of systemd where it passes any; else one bound to `listen`. Only loopback and Unix sockets."""
    listeners = _inherited() or [_bound(*(listen or ("127.0.0.1", 8000)))]
    for listener in listeners:
        _refuse_if_exposed(listener)
        listener.setblocking(False)
    return listeners


def _inherited() -> list[socket.socket]:
    # Taken out of the environment: they are meant for this process, not for one it starts.
    listener_count = int(os.environ.pop("LISTEN_FDS", "0"))
    addressee = os.environ.pop("LISTEN_PID", "")
    os.environ.pop("LISTEN_FDNAMES", None)
    if addressee != str(os.getpid()):
        return []
    listeners = [socket.socket(fileno=_FIRST_INHERITED + index) for index in range(listener_count)]
    for listener in listeners:
        listener.set_inheritable(False)
    return listeners


def numeric_address(host: str, port: int, *, hint: str) -> str:
    """The address as a socket unit takes it. Raises WrongUsage where it is none, or can be reached from elsewhere."""
    try:
        family, address = _resolved(host, port)
    except WrongUsage as error:
        raise WrongUsage(error.message, hint=hint) from error
    return f"[{address}]:{port}" if family == socket.AF_INET6 else f"{address}:{port}"


def _resolved(host: str, port: int) -> tuple[socket.AddressFamily, str]:
    try:
        family, _, _, _, found = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)[0]
    except socket.gaierror as error:
        raise WrongUsage(
            f"{host} is no address: {error.strerror}", hint="mmd gateway --listen 127.0.0.1:8000"
        ) from error
    address = str(found[0])
    _refuse_if_remote(address)
    return family, address


def _bound(host: str, port: int) -> socket.socket:
    family, address = _resolved(host, port)
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address, port))
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise _cannot_listen(host, port, error) from error
    return listener


def _cannot_listen(host: str, port: int, error: OSError) -> MmdError:
    if error.errno == errno.EADDRINUSE:
        return MmdError(f"port {port} of {host} is taken", hint=f"ss -ltnp 'sport = :{port}'   # see by whom")
    return MmdError(f"cannot listen on {host}:{port}: {error.strerror}", hint="mmd gateway --listen 127.0.0.1:8000")


def _refuse_if_exposed(listener: socket.socket) -> None:
    if listener.family in (socket.AF_INET, socket.AF_INET6):
        _refuse_if_remote(str(listener.getsockname()[0]))


def _refuse_if_remote(address: str) -> None:
    # Without API keys everybody who reaches the port may use and stop the models.
    if not ip_address(address.partition("%")[0]).is_loopback:
        message = f"{address} can be reached from other machines, and the gateway has no API keys"
        raise WrongUsage(message, hint="mmd gateway --listen 127.0.0.1:8000   # listen on this machine only")
