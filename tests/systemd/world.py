"""A world for tests with a user manager: real units, and fake engines that log their events."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from mmd.control.lifecycle.controller import Controller, unit_hooks
from mmd.control.lifecycle.planner import LaunchPlanner
from mmd.control.state.machine_reader import MachineReader
from mmd.paths import config_file
from mmd.plan.allocation import Allocation
from mmd.plan.launch import Launch, Sleep, WakeCheck
from mmd.plan.share import RAM
from mmd.registry.store import Registry
from tests.fakes.nvml import FakeGpus, use_in_this_process
from tests.fakes.vllm import install_fake_vllm
from tests.tiny_models import sparse_safetensors, tiny_gguf
from tests.user_manager import UserManager
from tests.well_known import llama_of

REPOSITORY = Path(__file__).parents[2]
_FAULTS = ("over-commit", "wrong-gpu")

# The fake engine sleeps without moving any memory.
SLEEP = Sleep(levels=(1,), weights_bytes=0, reserve_bytes=0, wake_check=WakeCheck.GENERATE)


class ChangedLaunches(LaunchPlanner):
    """The planner, with these changes to the launches of models."""

    def __init__(self, reader: MachineReader, registry: Registry, changes: Mapping[str, Mapping[str, Any]]) -> None:
        super().__init__(reader, registry)
        self._changes = changes

    async def launch(self, model_id: str, *, allocation: Allocation | None = None) -> Launch:
        launch = await super().launch(model_id, allocation=allocation)
        launch = replace(launch, **self._changes.get(model_id, {}))
        if launch.sleep is not None and launch.keeps is None:
            # Two tiny models that sleep must not fill the RAM.
            launch = replace(launch, keeps={device: 0 if device == RAM else 1280 for device in launch.share})
        return launch


class Sleepy(Controller):
    """The controller, with changed launches: the fake's own engines can neither sleep nor use a GPU."""

    def __init__(self, changes: Mapping[str, Mapping[str, Any]], hooks_folder: Path | None = None) -> None:
        super().__init__()
        self.planner = ChangedLaunches(self.reader, self.registry, changes)
        if hooks_folder is not None:
            self._hooks = unit_hooks(hooks_folder)
        self._hooks = replace(self._hooks, sleep_seconds=2, restart_seconds=0.3)


class World:
    def __init__(self, manager: UserManager, folder: Path) -> None:
        self.manager = manager
        self.folder = folder
        self.event_log = folder / "events"
        self.changes: dict[str, dict[str, Any]] = {}  # to the launches of models
        self.settings("")
        self._gpus: FakeGpus | None = None
        self._environment_before: dict[str, str | None] = {}
        manager.systemctl("set-environment", f"MMD_FAKE_EVENTS={self.event_log}", f"MMD_FAKE_GPU={folder / 'gpu'}")

    def add(self, *names: str, **behaviour: Any) -> None:
        """Register models under these names, served by fake engines with this behaviour."""
        for name in names:
            path = self.folder / f"{name}.gguf"
            tiny_gguf(path, name=name)
            Registry().add(path, id=name)
            self.behave(name, **behaviour)

    def add_sized(
        self, name: str, size_gib: float, *, context: int = 8192, embedding: bool = False, **behaviour: Any
    ) -> None:
        """Register a GGUF with a real header and weights of this size, which are a hole: nothing is written."""
        path = llama_of(size_gib, context=context, embedding=embedding).write(self.weights_folder / f"{name}.gguf")
        Registry().add(path, id=name)
        self.behave(name, **behaviour)

    def add_sized_vllm(self, name: str, size_gib: float, *, context: int = 8192, **behaviour: Any) -> None:
        """Register a folder of safetensors in the same way, for the fake vLLM of `add_vllm`: an engine that sleeps."""
        Registry().add(sparse_safetensors(self.weights_folder / name, size_gib, context=context), id=name)
        self.behave(name, **behaviour)

    def add_vllm(self) -> Path:
        """Install the fake vLLM, and return its program for mmd.toml."""
        return install_fake_vllm(self.folder / "vllm", "0.32.0")

    @cached_property
    def weights_folder(self) -> Path:
        """A folder in memory, in which reading a hole ahead costs nothing; `close` removes it."""
        return Path(tempfile.mkdtemp(prefix="weights", dir=self.manager.root))

    def behave(self, name: str, **behaviour: Any) -> None:
        """Set the behaviour of a model's engine, from its next start on."""
        if behaviour.get("can_sleep"):
            self.changes.setdefault(name, {}).setdefault("sleep", SLEEP)
        elif "sleep" in self.changes.get(name, {}):
            behaviour["can_sleep"] = True
        path = Path(Registry().get(name).path)
        path.with_name(f"{path.name}.fake.json").write_text(json.dumps(behaviour))

    def change_launch(self, *names: str, **changes: Any) -> None:
        """Change the launches of these models in controllers made from now on."""
        for name in names:
            self.changes.setdefault(name, {}).update(changes)

    def add_gpu(self, nvml_folder: Path) -> None:
        """Add a GPU with nothing on it, for engines and hooks; `change_launch` selects the models that use it."""
        state = self.folder / "nvml"
        state.write_text("0\n")
        self.manager.systemctl("set-environment", f"MMD_FAKE_NVML={state}", f"LD_LIBRARY_PATH={nvml_folder}")

    def add_gpus(self, *sizes_gib: float) -> FakeGpus:
        """Add GPUs of these sizes, for this process too. `close` then fails the test if memory was over-committed.

        The engines take what their launches give them: MMD_SHARE, checked at every allocation.
        """
        use_in_this_process()
        self._gpus = FakeGpus(self.folder / "nvml", sizes_gib)
        variables = self._gpus.environment
        self._environment_before = {name: os.environ.get(name) for name in variables}
        os.environ.update(variables)
        self.manager.systemctl("set-environment", *(f"{name}={value}" for name, value in variables.items()))
        self.manager.systemctl("unset-environment", "MMD_FAKE_GPU")  # several models are awake at once
        return self._gpus

    def close(self) -> None:
        """Stop what uses the GPUs of `add_gpus`, while the hooks can still load the driver, and take them away."""
        if "weights_folder" in self.__dict__:
            shutil.rmtree(self.weights_folder)
        if self._gpus is None:
            return
        self.manager.systemctl("stop", "mmd-*")
        self.manager.systemctl("unset-environment", *self._environment_before)
        for name, value in self._environment_before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
        self._gpus.close()
        self._gpus = None
        faults = self.faults()
        assert not faults, faults

    def faults(self) -> list[str]:
        """Return each time an engine took memory that its GPU did not have, or was sent to a GPU that it cannot see."""
        rows = [json.loads(line) for line in self._event_lines()]
        return [f"{row['event']} by {row['model']}: {row['detail']}" for row in rows if row["event"] in _FAULTS]

    def forgive_faults(self) -> None:
        """Forget the faults so far, so that `close` does not fail the test: the hooks were broken on purpose."""
        self.event_log.unlink(missing_ok=True)

    def settings(self, text: str, *, residency: str = "one") -> None:
        """Write mmd.toml. The tiny models of these tests would all fit beside each other, so one is resident."""
        config_file().parent.mkdir(parents=True, exist_ok=True)
        config_file().write_text(f'{text}\n[gpu]\nresidency = "{residency}"\n')

    def controller(self, *, hooks_folder: Path | None = None) -> Controller:
        """Return a controller; with `hooks_folder` its units run their hooks from there, as those of another
        installation.
        """
        return Sleepy(self.changes, hooks_folder)

    def events(self, *words: str) -> list[tuple[str, str]]:
        """Return `(event, model)` in order; all, or those of these kinds."""
        rows = [json.loads(line) for line in self._event_lines()]
        return [(row["event"], row["model"]) for row in rows if not words or row["event"] in words]

    def _event_lines(self) -> list[str]:
        return self.event_log.read_text().splitlines() if self.event_log.exists() else []

    def has_more(self, word: str, *, than: int) -> bool:
        """True if more events of this kind were written than that."""
        return len(self.events(word)) > than

    def journal(self, since: float) -> list[str]:
        """Return what mmd has logged under this manager since then, a time of the clock."""
        command = ("journalctl", "--no-pager", "--output=json", f"--since=@{since:.3f}", "SYSLOG_IDENTIFIER=mmd")
        printed = subprocess.run(command, capture_output=True, text=True, check=False).stdout
        rows = [json.loads(line) for line in printed.splitlines()]
        return [str(row["MESSAGE"]) for row in rows if self.manager.root.name in row.get("_SYSTEMD_CGROUP", "")]

    def main_pid(self, name: str) -> int:
        return int(self.manager.systemctl("show", "--property=MainPID", "--value", f"mmd-model@{name}.service"))

    def kill(self, name: str, signal: int) -> None:
        """Send a signal to a model's engine, if it runs."""
        pid = self.main_pid(name)
        if pid:
            os.kill(pid, signal)


def wait_for(condition: Callable[[], bool], *, what: str, seconds: float = 50.0) -> None:
    """Poll until the condition is true; fail the test if it does not become true in time."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"never: {what}"
        time.sleep(0.01)


def run_mmd(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mmd", *words], cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=60
    )
