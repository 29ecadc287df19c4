"""Check that the gateway listens on its addresses, and name the process that has them otherwise."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from mmd.control.doctor.diagnosis import Diagnosis, failed, ok
from mmd.control.install.users import user_name
from mmd.paths import config_file, gateway_socket

_LISTENING = "0A"  # TCP_LISTEN in /proc/net/tcp
_MAX_COMMAND_LEN = 60


@dataclass(frozen=True, slots=True)
class PortOwner:
    """The process that listens on a port. For a process of another user, only the user is known."""

    user: str
    pid: int | None = None
    command: str = ""


@dataclass(frozen=True, slots=True)
class _Socket:
    address: str
    port: int
    uid: int
    inode: str


def read_port_owners(addresses: Iterable[str]) -> dict[str, PortOwner | None]:
    """Map each HOST:PORT to the process that listens there; None if the port is free."""
    sockets = [*_sockets(Path("/proc/net/tcp")), *_sockets(Path("/proc/net/tcp6"))]
    return {address: _port_owner(address, sockets) for address in addresses}


def _sockets(table: Path) -> Iterator[_Socket]:
    try:
        lines = table.read_text("ascii").splitlines()[1:]
    except FileNotFoundError:
        return  # a kernel without IPv6
    for line in lines:
        words = line.split()
        if words[3] == _LISTENING:
            host, _, port = words[1].partition(":")
            yield _Socket(_address(host), int(port, 16), int(words[7]), words[9])


def _address(digits: str) -> str:
    """Convert an address of /proc/net/tcp: hexadecimal words of four bytes, each in this machine's byte order."""
    words = (int(digits[at : at + 8], 16) for at in range(0, len(digits), 8))
    raw = b"".join(word.to_bytes(4, sys.byteorder) for word in words)
    return socket.inet_ntop(socket.AF_INET if len(raw) == 4 else socket.AF_INET6, raw)


def _port_owner(address: str, sockets: Iterable[_Socket]) -> PortOwner | None:
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    for one in sockets:
        if one.port == int(port) and (host == one.address or _covers(host, one.address) or _covers(one.address, host)):
            return _owner(one)
    return None


def _covers(address: str, other: str) -> bool:
    """True if a listener on `address` also occupies `other`. `::` covers all of IPv4 too."""
    return address == "::" or (address == "0.0.0.0" and ":" not in other)


def _owner(one: _Socket) -> PortOwner:
    user = user_name(one.uid)
    for process in Path("/proc").glob("[0-9]*"):
        if _has(process, f"socket:[{one.inode}]"):
            return PortOwner(user, int(process.name), _command(process))
    return PortOwner(user)


def _has(process: Path, link: str) -> bool:
    try:
        with os.scandir(process / "fd") as entries:
            return any(os.readlink(entry.path) == link for entry in entries)  # noqa: PTH115  thousands of them
    except OSError:
        return False  # just ended, just closed it, or of another user


def _command(process: Path) -> str:
    try:
        words = (process / "cmdline").read_bytes().split(b"\0")
    except OSError:
        return ""
    return b" ".join(words).decode("utf-8", "replace").strip()


@dataclass(frozen=True, slots=True)
class GatewayAddress:
    """An address of the gateway and the socket unit that should listen there."""

    address: str
    unit: str
    is_ours: bool  # a socket unit of this user listens there
    is_masked: bool
    owner: PortOwner | None


def check_addresses(addresses: Iterable[GatewayAddress], *, is_installed: bool) -> Iterator[Diagnosis]:
    for address in addresses:
        owner = address.owner
        if address.is_ours:
            yield ok(f"listening on {address.address}")
        elif owner is not None and _is_gateway(owner):
            yield ok(f"{address.address}: used by `mmd gateway` in the foreground (pid {owner.pid})")
        elif owner is not None:
            yield failed(f"{address.address} is in use by {_describe(owner)}", _how_to_get(address.address, owner))
        elif is_installed and not address.is_masked:
            yield failed(
                f"{address.address}: {address.unit} does not listen", "mmd install   # starts the socket again"
            )
        else:
            yield ok(f"{address.address} is free")


def read_health(main: str, listening: Collection[str]) -> str:
    """Return the status line of the gateway's /health, which needs no key. Raises OSError.

    Asks the Unix socket if it is in `listening` (addresses of active sockets), else the TCP address `main`.
    """
    import httpx

    local = str(gateway_socket())
    transport = httpx.HTTPTransport(uds=local if local in listening else None, verify=False)  # no certificates to load
    with httpx.Client(transport=transport, timeout=None, trust_env=False) as client:
        try:
            url = f"http://{'localhost' if local in listening else main}/health"
            response = client.get(url, headers={"Host": "localhost"})  # the gateway refuses the name 0.0.0.0
        except httpx.HTTPError as error:
            raise OSError(str(error)) from error
    return f"{response.http_version} {response.status_code} {response.reason_phrase}"


def check_health(status: str) -> Iterator[Diagnosis]:
    if " 200 " not in status:
        yield failed(f"the gateway runs, but answers {status!r}", "journalctl --user -u mmd.service -n 20")


def _is_gateway(owner: PortOwner) -> bool:
    words = owner.command.split()
    return "gateway" in words and any(word == "mmd" or word.endswith("/mmd") for word in words)


def _describe(owner: PortOwner) -> str:
    if owner.pid is None:
        return f"a process of {owner.user}"
    return f"{_shortened(owner.command) or 'a process'} (pid {owner.pid}, {owner.user})"


def _shortened(command: str) -> str:
    return command if len(command) <= _MAX_COMMAND_LEN else f"{command[: _MAX_COMMAND_LEN - 1]}…"


def _how_to_get(address: str, owner: PortOwner) -> str:
    other = f"or set another port in {config_file()}"
    if owner.pid is None:
        return f"sudo ss -ltnp 'sport = :{address.rpartition(':')[2]}'   # shows the process; {other}"
    return f"kill {owner.pid} && mmd install   # {other}"
