"""mmd's log lines in the journal, with fields: `journalctl --user MMD_MODEL=qwen3` finds those about a model."""

from __future__ import annotations

import logging
import socket
import sys
from collections.abc import Mapping
from pathlib import Path

SOCKET = Path("/run/systemd/journal/socket")
_FIELDS = ("MMD_MODEL", "MMD_UNIT", "MMD_EVENT")

# syslog's priorities, which journalctl colours and filters by.
_PRIORITIES = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}


def log_to_journal() -> None:
    """Send mmd's log lines to the journal, and warnings that are not about a model to stderr as well."""
    log = logging.getLogger("mmd")
    log.setLevel(logging.INFO)
    if SOCKET.exists():
        log.addHandler(JournalHandler())
    log.addHandler(_stderr_handler())


def about(model_id: str, *, unit: str = "", event: str = "") -> dict[str, str]:
    """Return `extra` for a log line about a model: `journalctl --user MMD_MODEL=ID` finds it."""
    fields = {"MMD_MODEL": model_id, "MMD_UNIT": unit, "MMD_EVENT": event}
    return {name: value for name, value in fields.items() if value}


class JournalHandler(logging.Handler):
    """Speaks the journal's native protocol: https://systemd.io/JOURNAL_NATIVE_PROTOCOL/"""

    def __init__(self, path: Path = SOCKET) -> None:
        super().__init__()
        self._path = str(path)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._socket.sendto(datagram(self.format(record), record), self._path)
        except OSError:
            self.handleError(record)

    def close(self) -> None:
        self._socket.close()
        super().close()


def datagram(message: str, record: logging.LogRecord) -> bytes:
    fields = {
        "MESSAGE": message,
        "PRIORITY": str(_PRIORITIES.get(record.levelno, 6)),
        "SYSLOG_IDENTIFIER": "mmd",
        "CODE_FUNC": f"{record.name}.{record.funcName}",
    }
    fields |= {name: str(record.__dict__[name]) for name in _FIELDS if name in record.__dict__}
    return packed(fields)


def packed(fields: Mapping[str, str]) -> bytes:
    """Encode fields for the native protocol."""
    return b"".join(_field(name.encode(), value.encode("utf-8", "replace")) for name, value in fields.items())


def _field(name: bytes, value: bytes) -> bytes:
    if b"\n" not in value:
        return name + b"=" + value + b"\n"
    return name + b"\n" + len(value).to_bytes(8, "little") + value + b"\n"


def _stderr_handler() -> logging.Handler:
    handler = logging.StreamHandler(sys.stderr)
    handler.setLevel(logging.WARNING)
    handler.setFormatter(logging.Formatter("mmd: %(message)s"))
    # Decisions about a model reach the user as the result of their command.
    handler.addFilter(lambda record: "MMD_MODEL" not in record.__dict__)
    return handler
