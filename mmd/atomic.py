"""Replace a file so that a reader, a crash or a full disk finds the old content or the new, never half of one."""

from __future__ import annotations

import os
from pathlib import Path

from mmd.paths import make_private


def write_atomically(path: Path, content: bytes, *, durable: bool = True, mode: int = 0o600) -> os.stat_result:
    """Write, sync and rename. The folder is made (0700) if it is missing; the file has `mode`, whatever the umask.

    Return the new file's status. Raises OSError, and then leaves the old file and no temporary one.
    """
    make_private(path.parent)
    # Importing tempfile would cost each `mmd list` 4 ms.
    temporary = path.with_name(f".{path.name}.{os.urandom(6).hex()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, mode)
            file.write(content)
            file.flush()
            if durable:
                os.fsync(file.fileno())
            temporary.replace(path)
            status = os.fstat(file.fileno())
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if durable:
        _sync_folder(path.parent)
    return status


def _sync_folder(folder: Path) -> None:
    # A rename is on the disk only once the folder is.
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
