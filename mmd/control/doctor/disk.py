"""Check the file systems that hold models, downloads and mmd's own files."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from shlex import quote

from mmd import paths
from mmd.control.doctor.diagnosis import Diagnosis, failed, ok, warning
from mmd.quantities import GIB, size_text
from mmd.registry.cache_link import cache_folder
from mmd.registry.record import Model

_FULL_BYTES = GIB // 4  # below this, writing a record, a log or an engine's cache may fail
_LITTLE_BYTES = 10 * GIB  # about one 8-bit model with 8 billion parameters
_NETWORK = frozenset({"nfs", "nfs4", "cifs", "smb3", "9p", "ceph", "glusterfs", "afs", "fuse.sshfs", "fuse.rclone"})


@dataclass(frozen=True, slots=True)
class DiskSpace:
    """One mounted file system and what mmd keeps on it."""

    mount: str
    kind: str  # "ext4", "nfs4", …
    total_bytes: int
    free_bytes: int  # available to this user
    is_read_only: bool
    holds: tuple[str, ...]  # "models", "downloads", "mmd's records", "mmd's cache"


def read_disks(models: Sequence[Model]) -> tuple[DiskSpace, ...]:
    import psutil

    mounts = {one.mountpoint: one for one in psutil.disk_partitions(all=True)}
    held: dict[str, set[str]] = {}
    for what, place in _places(models):
        held.setdefault(_mount_of(place, mounts), set()).add(what)
    found = []
    for mount, holds in sorted(held.items()):
        usage, of = shutil.disk_usage(mount), mounts.get(mount)
        is_read_only = of is not None and "ro" in of.opts.split(",")
        kind = of.fstype if of is not None else ""  # the root of a container is not always listed
        found.append(DiskSpace(mount, kind, usage.total, usage.free, is_read_only, tuple(sorted(holds))))
    return tuple(found)


def _places(models: Iterable[Model]) -> Iterator[tuple[str, Path]]:
    yield "mmd's records", paths.data_dir()
    yield "mmd's cache", paths.cache_dir()
    yield "downloads", cache_folder()
    for model in models:
        yield "models", Path(model.path)


def _mount_of(place: Path, mounts: Iterable[str]) -> str:
    real = Path(os.path.realpath(place))
    known = set(mounts)
    return next((str(folder) for folder in (real, *real.parents) if str(folder) in known), "/")


def check_disks(disks: Iterable[DiskSpace]) -> Iterator[Diagnosis]:
    for one in disks:
        message = f"{one.mount}: {size_text(one.free_bytes)} free ({', '.join(one.holds)})"
        writes = set(one.holds) - {"models"}
        if one.is_read_only and writes:
            yield failed(
                f"{one.mount} is mounted read-only ({', '.join(sorted(writes))})", f"findmnt {quote(one.mount)}"
            )
        elif one.free_bytes < _FULL_BYTES and writes:
            yield failed(f"{message}: nearly full", "mmd disk   # shows what uses the space and how to free it")
        elif one.free_bytes < _LITTLE_BYTES and "downloads" in one.holds:
            yield warning(
                f"{message}: too little for most downloads", "mmd disk   # shows what uses the space and how to free it"
            )
        elif one.kind in _NETWORK and "models" in one.holds:
            yield warning(
                f"{message}: network file system ({one.kind}), so models load at network speed",
                "mmd archive ID DEST --move   # moves a model to a local disk; back: mmd restore",
            )
        else:
            yield ok(message)
