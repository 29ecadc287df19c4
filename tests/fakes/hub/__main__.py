"""Serve the folders OWNER/NAME below FOLDER as the repositories of a fake hub, until interrupted:

python -m tests.fakes.hub FOLDER [--port PORT] [--bytes-per-second N]
"""

from __future__ import annotations

import argparse
import signal
from pathlib import Path

from tests.fakes.hub import Slow, fake_hub, repositories_in


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.fakes.hub")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--bytes-per-second", type=float, help="the rate of each large file")
    options = parser.parse_args()
    with fake_hub(options.port) as hub:
        hub.repositories = repositories_in(options.folder)
        if options.bytes_per_second:
            hub.faults.append(Slow(options.bytes_per_second))
        print(f"export HF_ENDPOINT={hub.url} HF_HUB_DISABLE_XET=1   # {len(hub.repositories)} repositories", flush=True)
        signal.sigwait({signal.SIGINT, signal.SIGTERM})


if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})  # inherited by the serving threads
    main()
