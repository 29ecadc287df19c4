"""The sha256 of a file while it is fetched: it follows the writers, so little is left to read at the end."""

from __future__ import annotations

import hashlib

from mmd.quantities import MIB
from mmd.registry.hub.fetch import Throttle
from mmd.registry.hub.partial import Partial

_BUFFER_BYTES = MIB
_LOOK_UP_SECONDS = 0.5  # then it checks whether the download was stopped


def sha256_as_it_comes(partial: Partial, throttle: Throttle) -> str:
    """Return the hash once the whole file is there. Raises Cancelled."""
    digest = hashlib.sha256()
    buffer = memoryview(bytearray(_BUFFER_BYTES))
    at = 0
    while at < partial.size_bytes:
        throttle.check()
        partial.grown.clear()
        end = partial.contiguous_end(at)
        if end == at:
            partial.grown.wait(_LOOK_UP_SECONDS)
            continue
        while at < end:
            count = partial.read_into(buffer[: min(end - at, _BUFFER_BYTES)], at)
            digest.update(buffer[:count])
            at += count
    return digest.hexdigest()
