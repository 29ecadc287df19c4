"""Names that the hub gives and that become paths here: of files, branches and tags."""

from __future__ import annotations

from pathlib import PurePosixPath

_LONGEST_PART_BYTES = 255  # of any file system on Linux


def stays_inside(name: str) -> bool:
    """Whether it leads to one place below the folder it is put into, and can be written down and shown.

    Not what git allows, but what is safe here: a backslash is refused, as huggingface_hub takes it for a slash.
    """
    if not name.isprintable() or "\\" in name:  # what is printable has neither NUL nor half a surrogate pair
        return False
    path = PurePosixPath(name)
    return (
        path.as_posix() == name != "."
        and not path.is_absolute()
        and all(part != ".." and len(part.encode()) <= _LONGEST_PART_BYTES for part in path.parts)
    )
