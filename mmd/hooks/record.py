"""Records that hooks write into the runtime folder for each other and for mmd: one line of JSON in each file.

`asleep`, `canary` (the fingerprint of the wake check) and `level` are beside the engine's socket, in the folder that
systemd removes when the engine ends. So a record lives exactly as long as the process that it describes.
"""

import os

TYPE_CHECKING = False  # typing itself would have to be imported
if TYPE_CHECKING:
    from typing import Any


def write(path: str, line: str) -> None:
    """Replace a record atomically."""
    with open(f"{path}.new", "w", encoding="utf-8") as file:  # noqa: PTH123 pathlib is slow to import
        file.write(line + "\n")
    os.replace(f"{path}.new", path)  # noqa: PTH105


def read(path: str) -> str:
    """Return the line of a record; "" if there is none."""
    try:
        with open(path, encoding="utf-8") as file:  # noqa: PTH123
            return file.read().rstrip("\n")
    except OSError:
        return ""


def remove(path: str) -> None:
    """Remove a record if it exists."""
    try:
        os.unlink(path)  # noqa: PTH108
    except FileNotFoundError:
        return


def json_line(**values: "Any") -> str:
    """Return a JSON object of strings, numbers and None; strings are not escaped. To import json takes 5 ms."""
    return "{" + ", ".join(f'"{name}": {_json(value)}' for name, value in values.items()) + "}"


def _json(value: "Any") -> str:
    match value:
        case None:
            return "null"
        case float():
            return f"{value:.6f}"
        case int():
            return str(value)
        case _:
            return f'"{value}"'


def folder_of(socket_path: str) -> str:
    """Return the engine's runtime folder. Records that outlive the engine are beside it, such as `ID~wake`."""
    return socket_path.rpartition("/")[0]


def asleep_level(folder: str) -> int | None:
    """Return the level at which the engine sleeps, or from which its wake was not completed; None if it is awake."""
    _, known, rest = read(f"{folder}/asleep").partition('"level": ')
    return int(rest.partition(",")[0]) if known else None


def freed_bytes(folder: str) -> int:
    """Return the VRAM that the engine freed when it fell asleep; 0 if that is not known."""
    _, _, rest = read(f"{folder}/asleep").partition('"freed_bytes": ')
    digits = rest.rstrip("}")
    return int(digits) if digits.isdecimal() else 0


def write_asleep(folder: str, level: int, since: float, freed_bytes: int | None) -> None:
    write(f"{folder}/asleep", json_line(level=level, since=since, freed_bytes=freed_bytes))
