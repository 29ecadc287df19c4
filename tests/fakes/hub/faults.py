"""What can go wrong with a hub, as data: put one of these into `FakeHub.faults`."""

from __future__ import annotations

from dataclasses import dataclass, field

from tests.fakes.hub.content import Content


@dataclass(kw_only=True)
class Fault:
    """A fault of requests whose path and query contain `on`: by default those for the content of large files."""

    on: str = "/cdn/"
    spare: int = 0  # requests that pass before the first fault
    times: int | None = None  # None: always


@dataclass
class Slow(Fault):
    bytes_per_second: float


@dataclass
class Cut(Fault):
    """The response ends after this many bytes, and the connection with it."""

    after_bytes: int


@dataclass
class WrongByte(Fault):
    """This byte of the file is wrong."""

    at: int


@dataclass
class Refusal(Fault):
    """Another response: 429 with Retry-After, 401, 500."""

    status: int
    message: str = ""
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class RangeIgnored(Fault):
    """The whole file in response to a range, with status 200."""


@dataclass
class RangeShifted(Fault):
    """The response to a range begins this many bytes later than requested; `admitted`: its Content-Range says so."""

    by_bytes: int
    admitted: bool = False


@dataclass
class LengthWrong(Fault):
    """Content-Range claims that the file is this much larger than it is."""

    by_bytes: int


@dataclass
class Changed(Fault):
    """After this many responses with bytes of it, the file `name` is replaced, under all of its addresses."""

    name: str
    into: Content
    after_answers: int = 1
