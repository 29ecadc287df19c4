"""What hooks leave in the runtime folder for each other and for mmd: one line of JSON to a file.

`asleep`, `canary` and `level` lie beside the engine's socket, in the folder that systemd removes when the engine ends:
such a record lives exactly as long as the process that it is about.
"""

import os

TYPE_CHECKING = False  # typing itself would have to be imported
if TYPE_CHECKING:
    from typing import Any


def write(path: str, line: str) -> None:
    """All of it or nothing, whoever reads in between."""
    with open(f"{path}.new", "w", encoding="utf-8") as file:  # noqa: PTH123 pathlib is slow to import
        file.write(line + "\n")
    os.replace(f"{path}.new", path)  # noqa: PTH105


def read(path: str) -> str:
    """The line; "" where there is none."""
    try:
        with open(path, encoding="utf-8") as file:  # noqa: PTH123
            return file.read().rstrip("\n")
    except OSError:
        return ""


def remove(path: str) -> None:
    try:
        os.unlink(path)  # noqa: PTH108
    except FileNotFoundError:
        return


def json_line(**values: "Any") -> str:
    """A record of plain words, numbers and None. The json module takes 5 ms to import."""
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
    """The engine's runtime folder; what outlives the engine lies beside it: `ID~wake`."""
    return socket_path.rpartition("/")[0]


def asleep_level(folder: str) -> int | None:
    """The level that it was told to sleep at, and has not been woken from since."""
    _, known, rest = read(f"{folder}/asleep").partition('"level": ')
    return int(rest.partition(",")[0]) if known else None


def freed_bytes(folder: str) -> int:
    """The VRAM that it gave back when it fell asleep; 0 where that is not known."""
    _, _, rest = read(f"{folder}/asleep").partition('"freed_bytes": ')
    digits = rest.rstrip("}")
    return int(digits) if digits.isdecimal() else 0


def write_asleep(folder: str, level: int, since: float, freed_bytes: int | None) -> None:
    write(f"{folder}/asleep", json_line(level=level, since=since, freed_bytes=freed_bytes))
