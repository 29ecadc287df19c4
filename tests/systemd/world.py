"""A world for the second ring: a real user manager, real units, and fake engines that write down what they do."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from mmd.control.controller import Controller
from mmd.paths import config_file
from mmd.plan.launch import Canary, Launch, Sleep
from mmd.registry.store import Registry
from tests.tiny_models import tiny_gguf
from tests.user_manager import UserManager

# The fake engine sleeps without moving anything.
SLEEP = Sleep(levels=(1,), weights_bytes=0, reserve_bytes=0, canary=Canary.GENERATE)


class Sleepy(Controller):
    """The controller, with some models whose engines can sleep: no engine of this version's table can."""

    def __init__(self, sleepers: Iterable[str] = ()) -> None:
        super().__init__()
        self._sleepers = frozenset(sleepers)
        self._hooks = replace(self._hooks, sleep_seconds=2, restart_seconds=0.3)

    def launch(self, model_id: str, *, leaving: Mapping[str, int] | None = None) -> Launch:
        launch = super().launch(model_id, leaving=leaving)
        return replace(launch, sleep=SLEEP) if model_id in self._sleepers else launch


class World:
    def __init__(self, manager: UserManager, folder: Path) -> None:
        self.manager = manager
        self.folder = folder
        self.event_log = folder / "events"
        self.sleepers: set[str] = set()
        manager.systemctl("set-environment", f"MMD_FAKE_EVENTS={self.event_log}", f"MMD_FAKE_GPU={folder / 'gpu'}")

    def add(self, *names: str, **behaviour: Any) -> None:
        """Register models under these names, served by fake engines that behave so."""
        for name in names:
            path = self.folder / f"{name}.gguf"
            tiny_gguf(path, name=name)
            Registry().add(path, id=name)
            self.behave(name, **behaviour)

    def behave(self, name: str, **behaviour: Any) -> None:
        """From its next start on, the engine of a model does this."""
        if behaviour.get("can_sleep"):
            self.sleepers.add(name)
        elif name in self.sleepers:
            behaviour["can_sleep"] = True
        (self.folder / f"{name}.gguf.fake.json").write_text(json.dumps(behaviour))

    def settings(self, text: str) -> None:
        config_file().parent.mkdir(parents=True, exist_ok=True)
        config_file().write_text(text)

    def controller(self) -> Controller:
        return Sleepy(self.sleepers)

    def events(self, *words: str) -> list[tuple[str, str]]:
        """`(event, model)` in order; all, or those of these kinds."""
        lines = self.event_log.read_text().splitlines() if self.event_log.exists() else []
        rows = [json.loads(line) for line in lines]
        return [(row["event"], row["model"]) for row in rows if not words or row["event"] in words]

    def main_pid(self, name: str) -> int:
        return int(self.manager.systemctl("show", "--property=MainPID", "--value", f"mmd-model@{name}.service"))

    def kill(self, name: str, signal: int) -> None:
        """Send a signal to a model's engine, if it runs."""
        pid = self.main_pid(name)
        if pid:
            os.kill(pid, signal)


def wait_for(condition: Callable[[], bool], *, what: str, seconds: float = 20.0) -> None:
    """Wait until something is so that nobody announces; fails the test if it does not become so."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"never: {what}"
        time.sleep(0.01)
