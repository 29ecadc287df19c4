"""The sha256 of a file while it comes: it follows the writers, so that at the end next to nothing is left to do."""

from __future__ import annotations

import hashlib

from mmd.quantities import MIB
from mmd.registry.hub.fetch import Throttle
from mmd.registry.hub.partial import Partial

_BUFFER_BYTES = MIB
_LOOK_UP_SECONDS = 0.5  # whether all has been stopped meanwhile


def sha256_as_it_comes(partial: Partial, pace: Throttle) -> str:
    """Returns once all has come. Raises Stopped."""
    digest = hashlib.sha256()
    buffer = memoryview(bytearray(_BUFFER_BYTES))
    at = 0
    while at < partial.size_bytes:
        pace.go_on()
        partial.grown.clear()
        end = partial.whole_up_to(at)
        if end == at:
            partial.grown.wait(_LOOK_UP_SECONDS)
            continue
        while at < end:
            count = partial.read_into(buffer[: min(end - at, _BUFFER_BYTES)], at)
            digest.update(buffer[:count])
            at += count
    return digest.hexdigest()
