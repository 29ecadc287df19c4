"""What can go wrong with a hub, as data: put one of these into `FakeHub.faults`."""

from __future__ import annotations

from dataclasses import dataclass, field

from tests.fakes.hub.content import Content


@dataclass(kw_only=True)
class Fault:
    """`on` is a part of the path and query of the requests it befalls: those for the content of large files."""

    on: str = "/cdn/"
    spare: int = 0  # so many pass first
    times: int | None = None  # None: always


@dataclass
class Slow(Fault):
    bytes_per_second: float


@dataclass
class Cut(Fault):
    """The answer ends after so many bytes of it, and the connection with it."""

    after_bytes: int


@dataclass
class WrongByte(Fault):
    """This byte of the file is another one."""

    at: int


@dataclass
class Refusal(Fault):
    """Another answer: 429 with Retry-After, 401, 500."""

    status: int
    message: str = ""
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class RangeIgnored(Fault):
    """The whole file for a range, with status 200."""


@dataclass
class RangeShifted(Fault):
    """The answer to a range begins so many bytes later than asked; `admitted`: its Content-Range says so."""

    by_bytes: int
    admitted: bool = False


@dataclass
class LengthWrong(Fault):
    """Content-Range says that the file is so much larger than it is."""

    by_bytes: int


@dataclass
class Changed(Fault):
    """After so many answers with bytes of it, the file `name` is another one, under all of its addresses."""

    name: str
    into: Content
    after_answers: int = 1
