"""What a person, the OOM killer and bad luck do to the stress: systemctl and SIGKILL at random.

python -m tests.systemd.stress.hand SEED FOLDER_OF_WEIGHTS
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from mmd.errors import MmdError
from mmd.units.bus import Manager
from mmd.units.names import engine_unit, token_unit
from tests.systemd.stress.scene import MODELS, Done, Log

_SWAPS = "mmd-swap-*.slice"


class Hand:
    def __init__(self, seed: int, weights: str, manager: Manager) -> None:
        self.random = random.Random(seed)
        self.weights = weights
        self.manager = manager

    async def run(self, log: Log) -> None:
        while not log.is_over:
            await asyncio.sleep(self.random.uniform(0.02, 0.2))
            what, outcome = self._pick(), "done"
            try:
                outcome = await self._do(what)
            except MmdError as error:  # systemd says no
                outcome = getattr(error, "name", type(error).__name__).rpartition(".")[2]
            log.add(Done("hand", what, outcome))

    def _pick(self) -> str:
        shares = {
            "start token": 10,
            "stop token": 10,
            "restart token": 10,
            "start engine": 8,
            "stop engine": 8,
            "restart engine": 8,
            "kill engine": 16,
            "kill holder": 4,
            "stop swap": 8,
            "start token twice": 4,
        }
        return self.random.choices(list(shares), list(shares.values()))[0]

    async def _do(self, what: str) -> str:
        model = self.random.choice(MODELS)
        verb, _, rest = what.partition(" ")
        unit = token_unit(model) if rest.startswith("token") else engine_unit(model)
        match verb, rest:
            case "kill", "engine":
                return self._kill(f"/engine.py -m {self.weights}", f"serve {self.weights}")
            case "kill", "holder":
                return self._kill(f"tests.systemd.stress.borrower {self.weights}")
            case "stop", "swap":
                swaps = await self.manager.units((_SWAPS,))
                if not swaps:
                    return "nothing"
                unit = self.random.choice(swaps).name
                await self.manager.stop(unit)
            case "start", "token twice":
                await self.manager.start(unit)
                await self.manager.start(token_unit(self.random.choice(MODELS)))
            case "start", _:
                await self.manager.start(unit)
            case "stop", _:
                await self.manager.stop(unit)
            case _:
                await self.manager.try_restart(unit)
        return "done"

    def _kill(self, *words: str) -> str:
        """Kill a process of this stress: its command line has one of these texts."""
        found = list(_processes(words))
        if not found:
            return "nothing"
        with suppress(ProcessLookupError):
            os.kill(self.random.choice(found), signal.SIGKILL)
        return "done"


def _processes(words: tuple[str, ...]) -> Iterator[int]:
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
        except OSError:
            continue
        if any(word in command for word in words):
            yield int(process.name)


async def main(seed: str, weights: str) -> None:
    async with await Manager.connect() as manager:
        await Hand(int(seed), weights, manager).run(Log())


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
