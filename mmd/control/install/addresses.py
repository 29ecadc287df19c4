"""The TCP addresses that mmd.toml sets for the gateway."""

from __future__ import annotations

import socket
from dataclasses import dataclass

from mmd.errors import WrongUsage
from mmd.paths import config_file
from mmd.settings import Settings


@dataclass(frozen=True, slots=True)
class Addresses:
    """HOST:PORT with a numeric host, as socket units require."""

    main: str
    embedding: str | None  # None if mmd.toml turns it off

    @property
    def all(self) -> tuple[str, ...]:
        return (self.main,) if self.embedding is None else (self.main, self.embedding)


def gateway_addresses(settings: Settings) -> Addresses:
    """Return the gateway's addresses. Raises WrongUsage if mmd.toml has an invalid one."""
    main, embedding = settings.gateway.listen, settings.gateway.embedding_listen
    return Addresses(_numeric(main), _numeric(embedding) if embedding else None)


def host_port(address: str, port: int) -> str:
    """Return HOST:PORT, with brackets around an IPv6 address."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def resolve_host(host: str, port: int) -> tuple[socket.AddressFamily, str]:
    """Return the first address of a host. Raises WrongUsage if the name does not resolve."""
    try:
        family, _, _, _, found = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)[0]
    except socket.gaierror as error:
        raise WrongUsage(
            f"{host} is not a valid address: {error.strerror}", hint="mmd gateway --listen 127.0.0.1:8000"
        ) from error
    return family, str(found[0])


def _numeric(listen: str) -> str:
    host, _, port = listen.rpartition(":")
    try:
        return host_port(resolve_host(host, int(port))[1], int(port))
    except WrongUsage as error:
        hint = f'${{EDITOR:-nano}} {config_file()}   # [gateway] listen = "127.0.0.1:8000"'
        raise WrongUsage(error.message, hint=hint) from error
