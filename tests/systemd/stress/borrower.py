"""A program that takes what its lease gives it, for a moment.

    python -m tests.systemd.stress.borrower FOLDER_OF_WEIGHTS MILLISECONDS

The folder only marks the stress that it belongs to.
"""

from __future__ import annotations

import json
import os
import sys
import time

from tests.fakes import vram


def main(milliseconds: int) -> None:
    words = (word.partition("=") for word in os.environ["MMD_SHARE"].split())
    share = {device: int(mib) * vram.MIB for device, _, mib in words}
    if over := vram.hold(os.getpid(), share):
        line = json.dumps({"event": "over-commit", "model": "lease", "pid": os.getpid(), "detail": over})
        with open(os.environ["MMD_FAKE_EVENTS"], "a", encoding="utf-8") as events:  # noqa: PTH123 one short write
            events.write(f"{line}\n")
    time.sleep(milliseconds / 1000)


if __name__ == "__main__":
    main(int(sys.argv[2]))
