"""Read weights into the page cache while the previous model is unloaded, so that both overlap."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterable
from types import TracebackType
from typing import Self

from mmd.quantities import MIB

_log = logging.getLogger(__name__)

# Small, so that `stop` takes effect soon even on a slow disk.
_STEP_BYTES = 8 * MIB


class ReadAhead:
    """A context manager that reads files ahead in a thread, until its block ends."""

    def __init__(self, files: Iterable[str]) -> None:
        self._files = tuple(files)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._read, name="read-ahead", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()  # not joined: a step on a slow disk would block the event loop

    def stop(self) -> None:
        """End after the current step."""
        self._ended.set()

    def join(self, timeout_seconds: float) -> None:
        """Wait until all files have been read, or reading was stopped."""
        self._thread.join(timeout_seconds)

    def _read(self) -> None:
        for file in self._files:
            try:
                self._read_file(file)
            except OSError as error:  # the engine will fail in the same way, and report it
                _log.info("%s could not be read ahead: %s", file, error.strerror)

    def _read_file(self, file: str) -> None:
        descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
        try:
            for offset in range(0, os.fstat(descriptor).st_size, _STEP_BYTES):
                if self._ended.is_set():
                    return
                os.posix_fadvise(descriptor, offset, _STEP_BYTES, os.POSIX_FADV_WILLNEED)
        finally:
            os.close(descriptor)


def worthwhile(weights_bytes: int, ram_available_bytes: int, ram_total_bytes: int) -> bool:
    """Return whether weights stay cached until they are used: they fit into available RAM with a tenth left."""
    return weights_bytes <= ram_available_bytes - ram_total_bytes // 10
