"""The sha256 of large files, as fast as the disk or the processors are, and without emptying the page cache for it."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import BinaryIO

from mmd.quantities import MIB

_BLOCK_BYTES = 256 * 1024  # stays in a processor's own cache between the copy from the kernel and the hash
_DROP_BYTES = 32 * MIB
_MOST_AT_ONCE = 4
_BETWEEN_REPORTS_SECONDS = 0.2
_SAMPLES = 32

Report = Callable[[int], None]  # bytes read so far, of all files


def sha256_of(files: Iterable[str], report: Report) -> Mapping[str, str | OSError]:
    """The hexadecimal sha256 of each file, or why it could not be read; several at once where that helps.

    `report` is called by the thread that calls this.
    """
    wanted = tuple(dict.fromkeys(files))
    if not wanted:
        return {}
    count = _Counter()
    with ThreadPoolExecutor(_at_once(wanted), thread_name_prefix="sha256") as pool:
        begun = {pool.submit(_digest, path, count): path for path in wanted}
        try:
            _await(begun, count, report)
        except BaseException:
            count.end()  # ^C: the threads would go on to the end of their files
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    return {path: future.result() for future, path in begun.items()}


class _Counter:
    """Bytes that several threads have gone through, and whether they are to go on."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self.total_bytes = 0

    def add(self, size_bytes: int) -> None:
        """Raises InterruptedError once it is all over: an OSError, with which a thread ends as with any other."""
        if self._ended.is_set():
            raise InterruptedError
        with self._lock:
            self.total_bytes += size_bytes

    def end(self) -> None:
        self._ended.set()


def digest_while_reading(file: BinaryIO, each: Callable[[memoryview], None]) -> str:
    """The sha256 of an open file from where it stands; `each` sees every block of it once.

    What it reads is dropped from the page cache, where the file was not in there before: a read of 30 GB would push
    out the weights that the next swap wants to find there.
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


def _await(begun: Mapping[Future[str | OSError], str], count: _Counter, report: Report) -> None:
    left = set(begun)
    while left:
        _, left = wait(left, timeout=_BETWEEN_REPORTS_SECONDS, return_when=FIRST_COMPLETED)
        report(count.total_bytes)


def _is_cached(descriptor: int) -> bool:
    """Whether most of a file is in the page cache: samples of it can be had without waiting for the disk."""
    size_bytes = os.fstat(descriptor).st_size
    hits = 0
    for number in range(_SAMPLES):
        try:
            os.preadv(descriptor, [bytearray(1)], size_bytes * number // _SAMPLES, os.RWF_NOWAIT)
        except OSError:  # it would have to wait; or the file system cannot tell, and then the cache is let alone
            continue
        hits += 1
    return hits > _SAMPLES // 2


def _at_once(files: Iterable[str]) -> int:
    """One where any of them is on a disk that turns, where two readers are slower than one."""
    return 1 if any(map(_is_on_turning_disk, files)) else min(_MOST_AT_ONCE, len(os.sched_getaffinity(0)))


def _is_on_turning_disk(path: str) -> bool:
    """False also where the kernel does not say: btrfs, and what comes over a network."""
    try:
        device = os.stat(path).st_dev  # noqa: PTH116  a string, as the record has it
        block = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}").resolve(strict=True)
        queue = next(folder / "queue" for folder in (block, block.parent) if (folder / "queue").is_dir())
        return (queue / "rotational").read_text("ascii").strip() == "1"
    except (OSError, StopIteration):
        return False
