"""Whether the user manager outlives a session."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from mmd.control.doctor.diagnosis import Diagnosis, ok, warning
from mmd.control.install.lingering import linger_command, lingers


@dataclass(frozen=True, slots=True)
class Lingering:
    is_on: bool
    command: str | None  # that has the user manager stay; None where there is no logind that would end it


def read_lingering() -> Lingering:
    return Lingering(lingers(), linger_command())


def check_lingering(lingering: Lingering) -> Iterator[Diagnosis]:
    if lingering.is_on:
        yield ok("models stay when you log out, and load before you log in")
    elif lingering.command is None:
        yield ok("there is no logind here, which would end your units at logout")
    else:
        yield warning("models end when you log out, and nothing is loaded before you log in", lingering.command)
