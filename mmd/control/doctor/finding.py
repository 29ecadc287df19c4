"""What a check found: that all is well, or what is not and the command that mends it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class State(StrEnum):
    OK = "ok"
    WARNING = "warning"  # models run, and something is not as it should be
    FAILED = "failed"
    SKIPPED = "skipped"  # not looked at: what it depends on has failed


@dataclass(frozen=True, slots=True)
class Finding:
    check: str
    state: State
    message: str
    hint: str  # a command to paste; "" where there is nothing to do


@dataclass(frozen=True, slots=True)
class Verdict:
    """A finding that does not know yet which check it belongs to."""

    state: State
    message: str
    hint: str = ""

    def of(self, check: str) -> Finding:
        return Finding(check, self.state, self.message, self.hint)


def ok(message: str) -> Verdict:
    return Verdict(State.OK, message)


def warning(message: str, hint: str) -> Verdict:
    return Verdict(State.WARNING, message, hint)


def failed(message: str, hint: str) -> Verdict:
    return Verdict(State.FAILED, message, hint)
