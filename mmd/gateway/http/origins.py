"""Which Host names the gateway serves, and which origins' pages may call it.

A web page reaches every address that its browser reaches, including loopback. So a request must name the gateway by an
address that only the gateway has, or by a name that is known to be its own. Any other name could belong to an attacker
who made it resolve to this machine (DNS rebinding).
"""

from __future__ import annotations

import socket
from collections.abc import Iterable
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address
from urllib.parse import urlsplit


class AllowedHosts:
    """The configured hosts and origins, in addition to those that are always allowed.

    Always allowed are loopback names, the address that the client connected to, and origins on an allowed host.
    """

    def __init__(self, hosts: Iterable[str] = (), origins: Iterable[str] = ()) -> None:
        self._hosts = frozenset(host.lower() for host in hosts)
        self._origins = frozenset(origin.lower().rstrip("/").encode() for origin in origins)

    def is_host(self, authority: bytes, address: str) -> bool:
        """True if `host[:port]` means this machine to a client that is connected to its `address`."""
        if is_loopback_authority(authority):
            return True
        host = _host_of(authority)
        return host is not None and (host in self._hosts or (bool(address) and _same_address(host, address)))

    def is_origin(self, origin: bytes, address: str) -> bool:
        """True if pages from this origin may use the gateway."""
        if is_loopback_origin(origin) or origin.lower() in self._origins:
            return True
        scheme, separator, authority = origin.partition(b"://")
        return bool(separator) and scheme in _WEB and self.is_host(authority, address)


def own_hostnames() -> set[str]:
    """Return the names of this machine in its own network, without a DNS query."""
    full = socket.gethostname().lower()
    short = full.partition(".")[0]
    return {full, short, f"{short}.local"}  # the last is mDNS


@lru_cache(maxsize=256)
def is_loopback_authority(authority: bytes) -> bool:
    """True if `host[:port]` can only mean this machine."""
    host = _host_of(authority)
    return host is not None and _is_loopback(host)


@lru_cache(maxsize=256)
def is_loopback_origin(origin: bytes) -> bool:
    scheme, separator, authority = origin.partition(b"://")
    return bool(separator) and scheme in _WEB and is_loopback_authority(authority)


@lru_cache(maxsize=256)
def is_loopback_address(address: str) -> bool:
    return _parsed(address).is_loopback


_WEB = (b"http", b"https")


def _host_of(authority: bytes) -> str | None:
    """Return the host of `host[:port]` in lower case; None if it is malformed."""
    try:
        host = urlsplit(b"//" + authority).hostname
    except ValueError:
        return None
    return None if host is None or b"@" in authority else host.decode("latin-1")


def _is_loopback(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):  # RFC 6761: never resolved by DNS
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


@lru_cache(maxsize=256)
def _same_address(host: str, address: str) -> bool:
    try:
        return _parsed(host) == _parsed(address)
    except ValueError:
        return False


def _parsed(address: str) -> IPv4Address | IPv6Address:
    """Parse an address; ::ffff:192.0.2.1, as sockets on [::] report it, is 192.0.2.1 to clients."""
    found = ip_address(address.partition("%")[0])
    return (found.ipv4_mapped or found) if isinstance(found, IPv6Address) else found
