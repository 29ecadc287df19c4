"""Check whether the user manager outlives a login session."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from mmd.control.doctor.diagnosis import Diagnosis, ok, warning
from mmd.control.install.lingering import linger_command, lingers


@dataclass(frozen=True, slots=True)
class Lingering:
    """Whether lingering is on, and how to turn it on."""

    is_on: bool
    command: str | None  # enables lingering; None if logind does not run


def read_lingering() -> Lingering:
    return Lingering(lingers(), linger_command())


def check_lingering(lingering: Lingering) -> Iterator[Diagnosis]:
    if lingering.is_on:
        yield ok("on: models stay loaded after logout and load at boot")
    elif lingering.command is None:
        yield ok("no logind here, so nothing ends your units at logout")
    else:
        yield warning("off: models stop at logout, and none is loaded before you log in", lingering.command)
