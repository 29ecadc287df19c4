"""The entrances of the gateway: which of its addresses a request came to."""

from __future__ import annotations

from enum import StrEnum


class ListenerKind(StrEnum):
    """The words are the names of the descriptors that systemd passes, see units/*.socket."""

    MAIN = "main"
    EMBEDDING = "embedding"  # a request that names no model means the embedding model here
    LOCAL = "local"  # a Unix socket, for the user that the gateway runs as
