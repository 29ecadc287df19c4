"""A small Hugging Face hub on this machine: search, model info, files over a redirect to another host, and faults."""

from tests.fakes.hub.content import OnDisk
from tests.fakes.hub.faults import (
    Changed,
    Cut,
    Fault,
    LengthWrong,
    RangeIgnored,
    RangeShifted,
    Refusal,
    Slow,
    WrongByte,
)
from tests.fakes.hub.folder import repositories_in
from tests.fakes.hub.repository import COMMIT, FakeRepository
from tests.fakes.hub.server import STRANGER, TOKEN, FakeHub, fake_hub

__all__ = [
    "COMMIT",
    "STRANGER",
    "TOKEN",
    "Changed",
    "Cut",
    "FakeHub",
    "FakeRepository",
    "Fault",
    "LengthWrong",
    "OnDisk",
    "RangeIgnored",
    "RangeShifted",
    "Refusal",
    "Slow",
    "WrongByte",
    "fake_hub",
    "repositories_in",
]
