"""Turn pip's output into short messages for people."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import unquote

_PROGRESS = re.compile(r"Progress (?P<done>\d+) of (?P<total>\d+)")
_COLLECTING = re.compile(r"\s*Collecting (?P<what>[^ ;]+)")
_FETCHING = re.compile(r"\s*(?P<how>Downloading|Using cached) (?P<file>\S+) \((?P<size>[\d.]+ [kMG]?B)\)")
_INSTALLING = re.compile(r"\s*Installing collected packages: (?P<what>.+)")
_BUILDING = re.compile(r"\s*Building wheel for (?P<what>\S+) .*: started")
_FILE = re.compile(r"(?P<name>[^-]+)-(?P<version>[^-]+?)(?:-|\.tar\.gz|\.zip|$)")
_WORTH_A_LINE_BYTES = 10_000_000


@dataclass(frozen=True, slots=True)
class PipMessage:
    text: str
    is_step: bool  # it gets its own line if lines are not redrawn


class PipOutput:
    """Reads pip's lines in order; with `--progress-bar=raw` they contain the progress of a download."""

    def __init__(self) -> None:
        self._download = ""

    def read(self, line: str) -> PipMessage | None:
        """Return the message for a line; None if it has none."""
        if found := _PROGRESS.fullmatch(line.strip()):
            return self._progress(int(found["done"]), int(found["total"]))
        if found := _FETCHING.match(line):
            return self._fetching(found)
        if found := _COLLECTING.match(line):
            return PipMessage(f"Looking for {found['what']}", is_step=False)
        if found := _INSTALLING.match(line):
            count = found["what"].count(",") + 1
            return PipMessage(
                f"Installing {count} packages" if count > 1 else f"Installing {found['what']}", is_step=True
            )
        if found := _BUILDING.match(line):
            return PipMessage(f"Building {found['what']} from its source", is_step=True)
        return None

    def _progress(self, done_bytes: int, total_bytes: int) -> PipMessage | None:
        if not self._download or not total_bytes:
            return None
        return PipMessage(f"{self._download} · {_megabytes(done_bytes)} of {_megabytes(total_bytes)} MB", is_step=False)

    def _fetching(self, found: re.Match[str]) -> PipMessage | None:
        name = unquote(found["file"].rpartition("/")[2])
        if name.endswith(".metadata"):
            self._download = ""
            return None
        named = _FILE.match(name)
        what = f"{named['name'].replace('_', '-')} {named['version']}" if named else name
        self._download = f"Downloading {what}" if found["how"] == "Downloading" else ""
        text = f"{self._download or f'Taking {what} from the cache'} ({found['size']})"
        return PipMessage(text, is_step=_bytes(found["size"]) >= _WORTH_A_LINE_BYTES)


def failure(output: list[str]) -> str:
    """Return pip's own message: the last of several errors, and the last line of a traceback."""
    errors = [line.removeprefix("ERROR:").strip() for line in output if line.startswith("ERROR:")]
    if errors and errors[-1] != "Exception:":
        return errors[-1]
    return next((line.strip() for line in reversed(output) if line.strip()), "it printed nothing")


def _megabytes(size_bytes: int) -> str:
    return f"{size_bytes / 1_000_000:.{0 if size_bytes >= 10_000_000 else 1}f}"


def _bytes(size: str) -> float:
    """pip's own "132.7 MB"."""
    number, unit = size.split()
    return float(number) * {"B": 1, "kB": 1_000, "MB": 1_000_000, "GB": 1_000_000_000}[unit]
