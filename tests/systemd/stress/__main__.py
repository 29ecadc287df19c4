"""Run the stress by hand, under a user manager; see the package's docstring."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.fakes.engine import install_fake_llama_server
from tests.systemd.stress.hooks import NO_GATE, hooks_folder
from tests.systemd.stress.run import Stress
from tests.systemd.stress.scene import GPUS_GIB, furnish
from tests.systemd.world import World
from tests.user_manager import UserManager


class _ThisManager(UserManager):
    """The manager that this process runs under."""

    def __init__(self) -> None:
        super().__init__(Path(os.environ["XDG_RUNTIME_DIR"]).parent)

    def systemctl(self, *words: str) -> str:
        done = subprocess.run(["systemctl", "--user", *words], capture_output=True, text=True, check=False, timeout=60)
        return done.stdout


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--operations", type=int, default=400)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--no-gate", action="store_true", help="admit every model at once")
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--killed", type=float, default=0.12, help="share of the hooks that are killed")
    parser.add_argument("--calm", action="store_true", help="without commands and kills by hand")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=os.environ["HOME"]) as folder:
        bin_folder = Path(folder) / "bin"
        bin_folder.mkdir()
        world = World(_ThisManager(), Path(folder))
        gpus = world.add_gpus(*GPUS_GIB)
        furnish(world, install_fake_llama_server(bin_folder))
        hooks = hooks_folder(Path(folder), *([NO_GATE] if options.no_gate else []), killed_share=options.killed)
        stress = Stress(world, gpus, hooks, options.seed)
        report = stress.run(
            options.operations,
            stops_at_fault=options.no_gate,
            seconds=options.seconds,
            with_hand=not options.calm,
        )
        print(report)
    return bool(report.problems)


if __name__ == "__main__":
    sys.exit(main())
