"""Check owner and permissions of mmd's folders and sockets."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from stat import S_IMODE

from mmd import paths
from mmd.control.doctor.diagnosis import Diagnosis, failed, ok, warning
from mmd.control.install.users import user_name
from mmd.paths import engine_socket, gateway_socket
from mmd.registry.cache_link import cache_folder

_OTHERS = 0o077


@dataclass(frozen=True, slots=True)
class FolderState:
    """Owner and permissions of one folder, and what they should be."""

    path: str
    owner: str  # user name; the number if it has no name
    mode: int
    is_own: bool
    is_writable: bool
    is_private: bool = True  # must not be accessible to other users
    is_written: bool = True  # mmd writes to the folder and to the files in it
    foreign: str = ""  # the first entry that another user owns; checked only in private folders that mmd writes


def read_folders() -> tuple[FolderState, ...]:
    """Return the folders that exist.

    Downloads are shared with other tools, so that folder need not be private. The settings folder is not checked: it
    holds no secrets, API keys are stored as hashes.
    """
    found = [
        _folder_state(folder)
        for folder in (paths.runtime_dir(), paths.data_dir(), paths.state_dir(), paths.cache_dir())
    ]
    found.append(_folder_state(paths.user_runtime_dir(), is_written=False))
    found.append(_folder_state(cache_folder(), is_private=False))
    return tuple(folder for folder in found if folder is not None)


def _folder_state(folder: Path, *, is_private: bool = True, is_written: bool = True) -> FolderState | None:
    try:
        status = folder.stat()
    except FileNotFoundError:
        return None
    may_look = os.access(folder, os.R_OK | os.X_OK)
    return FolderState(
        path=str(folder),
        owner=user_name(status.st_uid),
        mode=S_IMODE(status.st_mode),
        is_own=status.st_uid == os.geteuid(),
        is_writable=os.access(folder, os.W_OK | os.X_OK),
        is_private=is_private,
        is_written=is_written,
        foreign=_first_foreign(folder) if is_private and is_written and may_look else "",
    )


def _first_foreign(folder: Path) -> str:
    with os.scandir(folder) as entries:
        return next((entry.path for entry in entries if _is_foreign(entry)), "")


def _is_foreign(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.stat(follow_symlinks=False).st_uid != os.geteuid()
    except FileNotFoundError:
        return False  # just removed


def check_folders(folders: Iterable[FolderState]) -> Iterator[Diagnosis]:
    wrong = [diagnosis for folder in folders for diagnosis in _check_folder(folder)]
    yield from wrong or [ok("mmd's folders belong to you and are private")]


def _check_folder(folder: FolderState) -> Iterator[Diagnosis]:
    path = quote(folder.path)
    if folder.is_written and not folder.is_writable:
        whose = "" if folder.is_own else f": it belongs to {folder.owner}"
        yield failed(f"{folder.path} is not writable{whose}", _take_over(folder.path))
    elif folder.is_written and folder.is_private and folder.foreign:
        # For example after `sudo mmd pull`.
        yield failed(f"{folder.foreign} belongs to another user, so mmd cannot update it", _take_over(folder.path))
    elif folder.is_private and folder.is_own and folder.mode & _OTHERS:
        yield warning(f"other users can open {folder.path} ({folder.mode:04o})", f"chmod 700 {path}")


def _take_over(path: str) -> str:
    return f'sudo chown -R "$(id -un):" {quote(path)}'


# -- sockets


@dataclass(frozen=True, slots=True)
class EngineSockets:
    """Problems of the Unix sockets of engines and gateway."""

    missing: tuple[str, ...]  # models whose engine runs but whose socket file is gone
    open: tuple[str, ...]  # paths that other users can connect to


def read_sockets(running: Iterable[str]) -> EngineSockets:
    """Check the sockets of the models in `running`. A leftover socket of an ended engine does no harm."""
    sockets = {model_id: engine_socket(model_id) for model_id in running}
    missing = tuple(model_id for model_id, path in sockets.items() if not path.exists())
    return EngineSockets(missing, tuple(str(path) for path in (gateway_socket(),) if _is_open(path)))


def _is_open(path: Path) -> bool:
    try:
        return bool(S_IMODE(path.stat().st_mode) & _OTHERS)
    except FileNotFoundError:
        return False


def check_sockets(sockets: EngineSockets) -> Iterator[Diagnosis]:
    for model_id in sockets.missing:
        yield failed(
            f"the engine of {model_id} runs, but its socket file is gone: it cannot be reached",
            f"mmd stop {model_id} && mmd activate {model_id}",
        )
    for path in sockets.open:
        yield warning(f"other users can connect to {path}", f"chmod 600 {quote(path)}")
    if not sockets.missing and not sockets.open:
        yield ok("all running engines are reachable, only by you")
