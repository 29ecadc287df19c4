"""What a check found: all is well, or what is wrong and the command that fixes it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """Severity of a diagnosis; part of the output of `mmd doctor --json`."""

    OK = "ok"
    WARNING = "warning"  # models run, but something is not as it should be
    FAILED = "failed"
    SKIPPED = "skipped"  # a check that it depends on has failed


@dataclass(frozen=True, slots=True)
class CheckResult:
    """A diagnosis with the name of its check: one line of `mmd doctor`."""

    check: str
    state: Level
    message: str
    hint: str  # a command to paste; "" if there is nothing to do


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What one check says, without the name of the check."""

    state: Level
    message: str
    hint: str = ""

    def of(self, check: str) -> CheckResult:
        return CheckResult(check, self.state, self.message, self.hint)


def ok(message: str) -> Diagnosis:
    return Diagnosis(Level.OK, message)


def warning(message: str, hint: str) -> Diagnosis:
    return Diagnosis(Level.WARNING, message, hint)


def failed(message: str, hint: str) -> Diagnosis:
    return Diagnosis(Level.FAILED, message, hint)
