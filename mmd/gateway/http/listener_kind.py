"""The kinds of address that the gateway listens on."""

from __future__ import annotations

from enum import StrEnum


class ListenerKind(StrEnum):
    """The values are the names of the descriptors that systemd passes, see units/*.socket."""

    MAIN = "main"
    EMBEDDING = "embedding"  # a request that names no model means the embedding model
    LOCAL = "local"  # a Unix socket, for the user that the gateway runs as
