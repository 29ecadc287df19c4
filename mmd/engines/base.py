"""What mmd has to know of an engine before it has looked whether one is installed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from mmd.plan.launch import Installed


@dataclass(frozen=True, slots=True)
class Engine:
    """A program that serves models over HTTP on a Unix socket.

    `find` takes the place the user configured, or None, and returns None where the engine is not installed. It
    raises EngineMissing where it is there and does not work.
    """

    name: str
    find: Callable[[str | None], Installed | None]
