"""A small Hugging Face hub on this machine: search, model info, files over a redirect to another host, and faults.

    python -m tests.fake_hub FOLDER [--port PORT] [--bytes-per-second N]

serves the folders OWNER/NAME below FOLDER as repositories until it is interrupted, and says how to use it.
"""

from __future__ import annotations

import argparse
import signal
from pathlib import Path

from tests.hub.content import OnDisk
from tests.hub.faults import Changed, Cut, Fault, LengthWrong, RangeIgnored, RangeShifted, Refusal, Slow, WrongByte
from tests.hub.folder import repositories_in
from tests.hub.repository import COMMIT, FakeRepository
from tests.hub.server import STRANGER, TOKEN, FakeHub, fake_hub

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


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.fake_hub")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--bytes-per-second", type=float, help="of each large file")
    asked = parser.parse_args()
    with fake_hub(asked.port) as hub:
        hub.repositories = repositories_in(asked.folder)
        if asked.bytes_per_second:
            hub.faults.append(Slow(asked.bytes_per_second))
        print(f"export HF_ENDPOINT={hub.url} HF_HUB_DISABLE_XET=1   # {len(hub.repositories)} repositories", flush=True)
        signal.sigwait({signal.SIGINT, signal.SIGTERM})


if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})  # of the threads that serve too
    main()
