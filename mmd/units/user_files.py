"""The files of `mmd install` in the user's unit folder: drop-ins, and whole units if no package has them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from mmd.atomic import write_atomically
from mmd.errors import StorageFailed
from mmd.paths import user_unit_dir
from mmd.units.unit_files import (
    DROP_IN,
    EMBEDDING_SOCKET,
    GATEWAY,
    PACKAGED_COMMAND,
    UNITS,
    drop_in_text,
    mmd_command,
    unit_text,
)

# systemd treats an empty unit file as masked, like a link to /dev/null. The user's `systemctl mask` makes the link; mmd
# writes the empty file.
_MASK = b""
_OUR_COMMAND = b" -P -m mmd "  # with any Python, and any version of mmd


def wanted(addresses: Mapping[str, str], masked: Iterable[str], *, are_packaged: bool) -> dict[Path, bytes]:
    """Return the files that should exist. `addresses` maps MAIN_SOCKET and, if wanted, EMBEDDING_SOCKET to HOST:PORT.

    The files of masked units are kept for the time when they are unmasked.
    """
    there = present()
    files: dict[Path, bytes] = {}
    for name in UNITS:
        if name in masked:
            files |= {file: there[file] for file in (unit_file(name), _drop_in(name)) if file in there}
        elif is_wanted(name, addresses):
            if not are_packaged:
                files[unit_file(name)] = unit_text(name, mmd_command()).encode()
            if (drop_in := drop_in_text(name, addresses)) is not None:
                files[_drop_in(name)] = drop_in.encode()
        elif are_packaged:
            files[unit_file(name)] = _MASK  # the package has it, and mmd.service would start it
    return files


def is_wanted(name: str, addresses: Mapping[str, str]) -> bool:
    return name != EMBEDDING_SOCKET or name in addresses


def present() -> dict[Path, bytes]:
    """Return the files that exist, written by any version of mmd."""
    places = (place(name) for name in UNITS for place in (unit_file, _drop_in))
    return {file: file.read_bytes() for file in places if file.is_file()}


def foreign_files(contents: Mapping[Path, bytes]) -> dict[Path, bytes]:
    """Return the files that `mmd install` has not written, such as those of `systemctl --user edit --full`."""
    if _OUR_COMMAND in contents.get(unit_file(GATEWAY), b""):
        return {}  # `mmd install` wrote the others with it
    return {file: content for file, content in contents.items() if not _is_ours(file, content)}


def put(contents: Mapping[Path, bytes]) -> tuple[Path, ...]:
    """Write these files and delete all others of `present`. Raises StorageFailed.

    Return the files that were not written by mmd. They are renamed to NAME.bak, which systemd does not read.
    """
    there = present()
    aside = tuple(file for file, content in foreign_files(there).items() if contents.get(file) != content)
    with _writing():
        for file in aside:
            file.replace(file.with_name(f"{file.name}.bak"))
    unlink(there.keys() - contents.keys() - {*aside})
    with _writing():
        for file, content in contents.items():
            # A file that is empty after a loss of power would mask the unit.
            write_atomically(file, content, mode=0o644)
    return aside


def links() -> tuple[Path, ...]:
    """Return the links that enable units, including dangling ones."""
    # Path.glob() with a full name does not find dangling links.
    return tuple(link for link in user_unit_dir().glob("*.wants/*") if link.name in UNITS)


def unlink(files: Iterable[Path]) -> None:
    """Delete files, and drop-in folders that become empty. Raises StorageFailed."""
    with _writing():
        for file in files:
            file.unlink()
            if file.parent != user_unit_dir() and not any(file.parent.iterdir()):
                file.parent.rmdir()


def is_masked_by_us(name: str) -> bool:
    """True if `mmd install` has masked the unit, not the user."""
    return present().get(unit_file(name)) == _MASK


def packaged_in(unit_path: Iterable[str]) -> Path | None:
    """Return the folder in which a package has installed mmd's units; `unit_path` has the manager's folders."""
    folders = (Path(folder) for folder in unit_path)
    return next((one for one in folders if one != user_unit_dir() and (one / GATEWAY).is_file()), None)


def unit_file(name: str) -> Path:
    return user_unit_dir() / name


def _is_ours(file: Path, content: bytes) -> bool:
    if file.name == DROP_IN or _OUR_COMMAND in content:
        return True
    return content in (_MASK, unit_text(file.name, PACKAGED_COMMAND).encode())


def _drop_in(name: str) -> Path:
    return user_unit_dir() / f"{name}.d" / DROP_IN


@contextmanager
def _writing() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        folder = user_unit_dir()
        raise StorageFailed(
            f"{folder} cannot be written: {error.strerror}", hint=f"ls -ld {folder}; df -h {folder}"
        ) from error
