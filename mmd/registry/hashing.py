"""Compute the sha256 of large files at the speed of the disk or the CPU, without evicting the page cache."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import BinaryIO

from mmd.quantities import MIB

_BLOCK_BYTES = 256 * 1024  # stays in the CPU's own cache between the copy from the kernel and the hash
_DROP_BYTES = 32 * MIB
_MAX_THREADS = 4
_BETWEEN_REPORTS_SECONDS = 0.2
_SAMPLES = 32

Report = Callable[[int], None]  # bytes read so far, of all files


def sha256_of(files: Iterable[str], report: Report) -> Mapping[str, str | OSError]:
    """Return the hexadecimal sha256 of each file, or the error that reading it raised.

    Reads several files at once if that is faster. `report` is called in the caller's thread.
    """
    wanted = tuple(dict.fromkeys(files))
    if not wanted:
        return {}
    count = _Counter()
    with ThreadPoolExecutor(_at_once(wanted), thread_name_prefix="sha256") as pool:
        futures = {pool.submit(_digest, path, count): path for path in wanted}
        try:
            _await(futures, count, report)
        except BaseException:
            count.end()  # Ctrl-C: without this the threads read their files to the end
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    return {path: future.result() for future, path in futures.items()}


class _Counter:
    """Count the bytes that several threads have read, and tell the threads to stop."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self.total_bytes = 0

    def add(self, size_bytes: int) -> None:
        """Count bytes. Raises InterruptedError after `end`: an OSError, which ends a thread like a read error."""
        if self._ended.is_set():
            raise InterruptedError
        with self._lock:
            self.total_bytes += size_bytes

    def end(self) -> None:
        self._ended.set()


def digest_while_reading(file: BinaryIO, each: Callable[[memoryview], None]) -> str:
    """Return the sha256 of an open file from its current position; `each` is called with every block.

    A file that was not in the page cache before is dropped from it: reading 30 GB would evict the weights that the next
    swap needs.
    """
    digest, buffer = hashlib.sha256(), bytearray(_BLOCK_BYTES)
    drop = not _is_cached(file.fileno())
    view = memoryview(buffer)
    dropped = offset = file.tell()
    while length := file.readinto(buffer):  # type: ignore[attr-defined]  # of a raw file
        digest.update(view[:length])
        each(view[:length])
        offset += length
        if drop and offset - dropped >= _DROP_BYTES:
            os.posix_fadvise(file.fileno(), dropped, offset - dropped, os.POSIX_FADV_DONTNEED)
            dropped = offset
    if drop:
        os.posix_fadvise(file.fileno(), dropped, 0, os.POSIX_FADV_DONTNEED)
    return digest.hexdigest()


def _digest(path: str, count: _Counter) -> str | OSError:
    try:
        with Path(path).open("rb", buffering=0) as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_SEQUENTIAL)
            return digest_while_reading(file, lambda block: count.add(len(block)))
    except OSError as error:
        return error


def _await(futures: Mapping[Future[str | OSError], str], count: _Counter, report: Report) -> None:
    left = set(futures)
    while left:
        _, left = wait(left, timeout=_BETWEEN_REPORTS_SECONDS, return_when=FIRST_COMPLETED)
        report(count.total_bytes)


def _is_cached(descriptor: int) -> bool:
    """True if most of a file is in the page cache: samples of it are read without waiting for the disk."""
    size_bytes = os.fstat(descriptor).st_size
    hits = 0
    for number in range(_SAMPLES):
        try:
            os.preadv(descriptor, [bytearray(1)], size_bytes * number // _SAMPLES, os.RWF_NOWAIT)
        except OSError:  # the read would wait for the disk, or the file system does not support RWF_NOWAIT
            continue
        hits += 1
    return hits > _SAMPLES // 2


def _at_once(files: Iterable[str]) -> int:
    """Return the number of threads: 1 if a file is on a rotating disk, where two readers are slower than one."""
    return 1 if any(map(_is_on_rotating_disk, files)) else min(_MAX_THREADS, len(os.sched_getaffinity(0)))


def _is_on_rotating_disk(path: str) -> bool:
    """True if the kernel reports a rotating disk; it does not for btrfs and network file systems."""
    try:
        device = os.stat(path).st_dev  # noqa: PTH116  a string, as the record has it
        block = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}").resolve(strict=True)
        queue = next(folder / "queue" for folder in (block, block.parent) if (folder / "queue").is_dir())
        return (queue / "rotational").read_text("ascii").strip() == "1"
    except (OSError, StopIteration):
        return False
