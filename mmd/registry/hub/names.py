"""Names from the hub that become paths here: of files, branches and tags."""

from __future__ import annotations

from pathlib import PurePosixPath

_MAX_PART_BYTES = 255  # on all file systems of Linux


def stays_inside(name: str) -> bool:
    """Return whether a name is a printable path that stays below the folder it is joined to.

    Stricter than git: a backslash is refused because huggingface_hub treats it as a slash.
    """
    if not name.isprintable() or "\\" in name:  # excludes NUL and lone surrogates as well
        return False
    path = PurePosixPath(name)
    return (
        path.as_posix() == name != "."
        and not path.is_absolute()
        and all(part != ".." and len(part.encode()) <= _MAX_PART_BYTES for part in path.parts)
    )
