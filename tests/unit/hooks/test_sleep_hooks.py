"""The sleep hooks as systemd runs them: real processes, a fake engine, and a systemctl that logs its arguments."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from mmd import hooks
from mmd.units import lock
from mmd.units.spec import Hooks
from tests.engines.running import Running, running
from tests.fakes.engine import install_fake_llama_server

HOOKS = Path(hooks.__file__).parent
GIB = 1024**3
UNIT = "mmd-model@a.service"
_SECONDS = 30  # more than any step here needs
_LOOK_SECONDS = 0.002  # between two checks for a process that has ended


class Bed:
    """A model's runtime folder, with or without an engine in it, and a `systemctl` for its unit only."""

    def __init__(self, folder: Path) -> None:
        runtime = folder / "mmd"
        self.folder = runtime / "a"
        self.folder.mkdir(parents=True)
        # As the gate of its token left them: it holds 1 MiB.
        (runtime / "a~gpu").mkdir()
        for entry in ("a~size", "a~gpu/held"):
            (runtime / entry).write_text("ram=1")
        self.model = self.folder / "tiny.gguf"
        self.model.write_bytes(b"GGUF")
        self.bin = folder / "systemctl-bin"
        self.bin.mkdir()
        self.calls = self.bin / "calls"
        self.calls.touch()
        self.state = "active"
        self.sub_state = "running"
        self.pid = 0
        self.environment = dict(os.environ) | {"PATH": f"{self.bin}:{os.environ['PATH']}"}
        program = self.bin / "systemctl"
        program.write_text(
            f'#!/bin/sh\ncd {self.bin}\necho "$*" >> calls\ncase "$2" in\n'
            "  show) cat shown;;\n  kill) read pid < pid; [ $pid = 0 ] || kill -9 $pid;;\nesac\n"
        )
        program.chmod(0o755)

    @contextmanager
    def engine(self, **behaviour: Any) -> Iterator[Running]:
        Path(f"{self.model}.fake.json").write_text(json.dumps({"can_sleep": True} | behaviour))
        command = (str(install_fake_llama_server(self.bin)),)
        with running(command, self.model) as server:
            self.pid = server.process.pid
            server.wait_ready()
            self.run("ready", str(server.socket_path), "20", "generate")
            yield server

    def run(self, hook: str, *words: str) -> subprocess.CompletedProcess[str]:
        (self.bin / "pid").write_text(f"{self.pid}\n")
        (self.bin / "shown").write_text(
            f"ActiveState={self.state}\nSubState={self.sub_state}\nControlGroup=\nExecMainPID={self.pid}\n"
        )
        done = subprocess.run(
            [sys.executable, "-I", "-S", str(HOOKS / f"{hook}.py"), *words],
            env=self.environment | {"MAINPID": str(self.pid or os.getpid())},
            capture_output=True,
            text=True,
            check=False,
            timeout=_SECONDS,
        )
        assert "Traceback" not in done.stderr, done.stderr
        return done

    def release(
        self,
        *,
        seconds: float = 20,
        levels: str = "1,2",
        weights_bytes: int = 0,
        reserve_bytes: int = 0,
        device: str = "cpu",
    ) -> subprocess.CompletedProcess[str]:
        numbers = str(seconds), levels, str(weights_bytes), str(reserve_bytes)
        return self.run("release", UNIT, str(self.socket), *numbers, device, "ram=1")

    def wake(self, kind: str = "generate", device: str = "cpu") -> subprocess.CompletedProcess[str]:
        return self.run(
            "wake", UNIT, str(self.socket), kind, "20", device, "a", str(self.folder.parent), "0", "ram=1/2"
        )

    @property
    def socket(self) -> Path:
        return self.model.with_suffix(".sock")

    @property
    def ended(self) -> bool:
        """True if the unit was killed, and then waited for."""
        return "kill,stop" in ",".join(self.verbs())

    def verbs(self) -> list[str]:
        calls = [line.split() for line in self.calls.read_text().splitlines()]
        assert all(call[0] == "--user" and call[-1] == UNIT for call in calls)
        return [call[1] for call in calls]

    def events(self) -> list[str]:
        lines = Path(f"{self.model}.events").read_text().splitlines()
        words = [json.loads(line)["event"] for line in lines]
        return [word for word in words if word in ("sleep", "wake", "reload")]

    def asleep(self) -> dict[str, Any] | None:
        path = self.folder / "asleep"
        return json.loads(path.read_text()) if path.exists() else None

    def phases(self, hook: str) -> dict[str, Any]:
        record: dict[str, Any] = json.loads(Path(f"{self.folder}~{hook}").read_text())
        return record


@pytest.fixture
def bed(tmp_path: Path) -> Bed:
    return Bed(tmp_path)


# --- falling asleep


def test_release_puts_an_engine_to_sleep_and_wake_wakes_it(bed: Bed) -> None:
    with bed.engine() as server:
        began = time.monotonic()
        released = bed.release()
        assert (released.returncode, released.stderr, bed.ended) == (0, "", False)
        asleep = bed.asleep()
        assert asleep is not None
        assert (asleep["level"], asleep["freed_bytes"]) == (1, None)
        assert asleep["since"] == pytest.approx(time.monotonic(), abs=_SECONDS)
        phases = bed.phases("release")
        assert (phases["level"], phases["outcome"], phases["freed_bytes"]) == (1, "slept", None)
        assert began < phases["began"] < phases["began"] + phases["sleep_seconds"] < time.monotonic()
        woken = bed.wake()
        assert (woken.returncode, woken.stderr, bed.ended) == (0, "", False)
        assert bed.asleep() is None
        phases = bed.phases("wake")
        assert (phases["level"], phases["outcome"]) == (1, "woke")
        assert phases["wake_seconds"] > 0
        assert phases["canary_seconds"] > 0
        assert server.get("/is_sleeping").json() == {"is_sleeping": False}
    assert bed.events() == ["sleep", "wake"]


def test_release_at_level_2_and_wake_reads_the_weights_again(bed: Bed) -> None:
    with bed.engine() as server:
        bed.release(levels="2")
        assert bed.asleep() is not None
        assert (bed.wake().stderr, bed.asleep()) == ("", None)
        assert server.post("/v1/completions").json()["choices"][0]["text"].startswith("tiny")
    assert bed.events() == ["sleep", "reload", "wake"]


def test_release_uses_level_2_if_ram_is_short(bed: Bed) -> None:
    with bed.engine():
        assert bed.release(reserve_bytes=10**18).returncode == 0
        assert (bed.asleep() or {})["level"] == 2


def test_release_stops_an_engine_if_ram_is_short_for_its_level(bed: Bed) -> None:
    with bed.engine():
        done = bed.release(levels="1", weights_bytes=10**18)
        assert (done.returncode, bed.ended) == (0, True)
        assert "RAM is short" in done.stderr
        assert bed.phases("release")["outcome"] == "stopped"
    assert bed.events() == []


def test_release_at_the_level_that_was_asked_for_by_hand(bed: Bed) -> None:
    with bed.engine():
        (bed.folder / "level").write_text("2")
        bed.release()
        assert (bed.asleep() or {})["level"] == 2
        assert not (bed.folder / "level").exists(), "it is for once"


def test_release_after_half_a_wake_keeps_no_missing_weights(bed: Bed) -> None:
    """Level 1 would have kept incomplete weights, and restored them."""
    with bed.engine() as server:
        bed.release(levels="2")
        server.post("/wake_up?tags=weights")
        bed.release(levels="1,2")
        assert (bed.asleep() or {})["level"] == 2
        assert bed.wake().stderr == ""
    assert not bed.ended


def test_release_waits_for_answers_that_are_under_way(bed: Bed) -> None:
    with bed.engine(chunk_seconds=0.1, chunks=5) as server:
        answer: list[Any] = []
        asks = threading.Thread(target=lambda: answer.append(server.post("/v1/completions").json()))
        asks.start()
        while server.process.poll() is None and _running(bed) < 2:  # the first request is the wake check's
            time.sleep(0.002)
        bed.release()
        asks.join(_SECONDS)
        assert answer[0]["choices"][0]["finish_reason"] == "stop"
        assert bed.asleep() is not None


def _running(bed: Bed) -> int:
    return Path(f"{bed.model}.events").read_text().count('"request"')


# --- an engine that does not fall asleep


@pytest.mark.parametrize(
    ("behaviour", "said"),
    [
        ({"hang_in_sleep": True}, "/sleep answered timed out"),
        ({"sleep_status": 500}, "/sleep answered 500"),
        ({"die_in_sleep": True}, "/sleep answered"),
        ({"can_sleep": False}, "/sleep answered 404"),
    ],
    ids=["hangs", "answers_500", "dies", "cannot"],
)
def test_release_ends_an_engine_that_does_not_sleep(bed: Bed, behaviour: dict[str, Any], said: str) -> None:
    with bed.engine(**behaviour):
        done = bed.release(seconds=0.5)
        assert done.returncode == 0, "the GPU is free of it, which is all that was asked"
        assert bed.ended
        assert said in done.stderr
        assert (bed.phases("release")["level"], bed.phases("release")["outcome"]) == (None, "stopped")


@pytest.mark.parametrize("state", ["activating", "deactivating", "reloading"])
def test_release_ends_an_engine_that_still_loads(bed: Bed, state: str) -> None:
    """Its socket refuses. A release that took that for "not running" let two models load at once."""
    bed.state = state
    assert bed.release().returncode == 0
    assert bed.ended


@pytest.mark.parametrize(("sub_state", "is_ended"), [("auto-restart", True), ("auto-restart-queued", False)])
def test_release_leaves_a_restart_that_has_begun(bed: Bed, sub_state: str, is_ended: bool) -> None:
    """systemd 254 and newer restart the token with its engine, and a crashed engine stayed down."""
    bed.state, bed.sub_state = "activating", sub_state
    bed.release()
    assert bed.ended is is_ended


@pytest.mark.parametrize("state", ["inactive", "failed"])
def test_release_of_an_engine_that_does_not_run_is_done(bed: Bed, state: str) -> None:
    bed.state = state
    done = bed.release()
    assert (done.returncode, done.stderr, bed.verbs()) == (0, "", ["show"])


def test_release_whose_engine_has_just_lost_its_folder_ends_it(bed: Bed) -> None:
    shutil.rmtree(bed.folder)
    assert bed.release().returncode == 0
    assert bed.ended


def test_release_with_arguments_of_an_older_mmd_ends_it(bed: Bed) -> None:
    """The token of an older mmd: the next model loads when this hook has exited."""
    with pytest.raises(AssertionError, match="Traceback"):
        bed.run("release", UNIT, str(bed.socket), "30")
    assert bed.ended


# --- waking


@pytest.mark.parametrize("state", ["inactive", "failed", "activating"])
def test_wake_leaves_a_stopped_engine_to_its_own_start(bed: Bed, state: str) -> None:
    bed.state = state
    done = bed.wake()
    assert (done.returncode, done.stderr, bed.verbs()) == (0, "", ["show"])


def test_wake_does_not_ask_systemd_about_an_engine_that_sleeps(bed: Bed) -> None:
    """A call of systemctl takes 5 ms of a swap that may take 50."""
    with bed.engine():
        bed.release()
        bed.calls.write_text("")
        bed.wake()
        assert bed.verbs() == []


def test_wake_of_an_engine_that_is_awake_changes_nothing(bed: Bed) -> None:
    with bed.engine():
        assert (bed.wake().stderr, bed.ended) == ("", False)
    assert bed.events() == []


def test_wake_restarts_an_engine_that_only_claims_to_be_awake(bed: Bed) -> None:
    with bed.engine(wake_lies=True):
        bed.release()
        done = bed.wake()
        assert done.returncode == 0, "the token stays, and its engine starts"
        assert "/is_sleeping says that it still sleeps; it is stopped and started cold" in done.stderr
        assert bed.verbs()[-4:] == ["kill", "stop", "reset-failed", "start"]
        assert bed.phases("wake")["outcome"] == "cold"


def test_wake_starts_an_engine_cold_whose_socket_is_gone(bed: Bed) -> None:
    done = bed.wake()
    assert bed.verbs()[-4:] == ["kill", "stop", "reset-failed", "start"]
    assert "No such file" in done.stderr


def test_wake_leaves_an_engine_that_died_asleep_to_its_own_start(bed: Bed) -> None:
    with bed.engine() as server:
        bed.release()
        server.process.kill()
        server.wait()
        bed.state = "inactive"
        assert (bed.wake().returncode, bed.ended) == (0, False)


@pytest.mark.parametrize("kind", ["generate", "embed", "score"])
def test_wake_check_tells_a_model_from_garbage(bed: Bed, kind: str) -> None:
    with bed.engine() as server:
        bed.run("ready", str(server.socket_path), "20", kind)
        recorded = (bed.folder / "canary").read_text()
        bed.release()
        assert bed.wake(kind).stderr == ""
        bed.release(levels="2")
        (bed.folder / "asleep").write_text('{"level": 1, "since": 0, "freed_bytes": null}')
        done = bed.wake(kind)  # from level 1, so without reading the weights
        assert bed.verbs()[-4:] == ["kill", "stop", "reset-failed", "start"]
        assert f"instead of {recorded[:4]}" in done.stderr


def test_wake_check_without_a_record_takes_any_token(bed: Bed) -> None:
    with bed.engine():
        bed.release()
        (bed.folder / "canary").unlink()
        assert (bed.wake().stderr, bed.ended) == ("", False)


def test_ready_removes_records_of_an_earlier_process(bed: Bed) -> None:
    for name in ("asleep", "level", "canary"):
        (bed.folder / name).write_text("{}")
    with bed.engine():
        left = {path.name for path in bed.folder.iterdir()} & {"asleep", "level", "canary"}
    assert left == {"canary"}
    assert (bed.folder / "canary").read_text() == '"tiny-0 tiny-1 tiny-2 "\n'


# --- with a GPU


@pytest.fixture
def gpu(bed: Bed, nvml_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The state of a GPU on which another program uses 1 GiB."""
    state = tmp_path / "nvml-state"
    state.write_text(f"{GIB} 1:{GIB}\n")
    monkeypatch.setenv("MMD_FAKE_NVML", str(state))
    bed.environment |= {"MMD_FAKE_NVML": str(state), "LD_LIBRARY_PATH": str(nvml_folder)}
    return state


@pytest.mark.parametrize("untold", ["", "untold\n"], ids=["per_process", "device_only"])
def test_release_waits_for_freed_memory(bed: Bed, gpu: Path, untold: str) -> None:
    gpu.write_text(f"{untold}{GIB} 1:{GIB}\n")
    with bed.engine(weights_bytes=4 * GIB, kv_bytes=GIB):
        done = bed.release(weights_bytes=4 * GIB, device="gpu", levels="2")
        assert (done.stderr, bed.ended) == ("", False)
        assert (bed.asleep() or {})["freed_bytes"] == 5 * GIB
        assert bed.phases("release")["freed_bytes"] == 5 * GIB


@pytest.mark.parametrize("untold", ["", "untold\n"], ids=["per_process", "device_only"])
def test_release_ends_an_engine_that_sleeps_and_frees_nothing(bed: Bed, gpu: Path, untold: str) -> None:
    gpu.write_text(f"{untold}{GIB} 1:{GIB}\n")
    with bed.engine(weights_bytes=4 * GIB, sleep_frees_nothing=True):
        done = bed.release(weights_bytes=4 * GIB, device="gpu", levels="2", seconds=0.5)
        assert bed.ended
        assert f"freed 0 of {4 * GIB} bytes" in done.stderr
        assert "GPU free after 0.0" in done.stdout


def test_release_after_an_interrupted_wake_has_nothing_to_free(bed: Bed, gpu: Path) -> None:
    with bed.engine(weights_bytes=4 * GIB):
        bed.release(weights_bytes=4 * GIB, device="gpu", levels="2")
        assert bed.release(weights_bytes=4 * GIB, device="gpu", levels="2", seconds=0.5).stderr == ""
    assert not bed.ended


def test_release_trusts_the_engine_without_a_driver(bed: Bed, gpu: Path) -> None:
    gpu.write_text("init 18\n0\n")
    with bed.engine(weights_bytes=4 * GIB, sleep_frees_nothing=True):
        done = bed.release(weights_bytes=4 * GIB, device="gpu", levels="2")
        assert "cannot be read: NVML failed to initialise: error 18" in done.stdout
        assert (bed.ended, (bed.asleep() or {})["freed_bytes"]) == (False, None)


def test_release_waits_for_the_driver_to_free_memory(bed: Bed, gpu: Path) -> None:
    bed.state = "failed"
    bed.pid = _ended_pid()
    gpu.write_text(f"0 !{bed.pid}:5\n")
    done = bed.release(device="gpu")
    assert float(done.stdout.removeprefix("GPU free after ").removesuffix(" s\n")) >= _LOOK_SECONDS
    assert bed.phases("release")["vram_seconds"] >= _LOOK_SECONDS


def test_wait_released_waits_for_the_driver(bed: Bed, gpu: Path) -> None:
    bed.state = "inactive"
    bed.pid = _ended_pid()
    gpu.write_text(f"0 !{bed.pid}:5\n")
    done = bed.run("wait_released", UNIT, str(bed.socket))
    assert "GPU free after" in done.stdout
    phases = bed.phases("release")
    assert phases["outcome"] == "stopped"
    assert phases["vram_seconds"] >= _LOOK_SECONDS


def test_wait_released_ends_the_engine_with_end(bed: Bed, gpu: Path) -> None:
    with bed.engine(weights_bytes=GIB):
        gpu.write_text(f"0 @{bed.pid}:5\n")
        assert "GPU free after" in bed.run("wait_released", UNIT, str(bed.socket), "end").stdout
        assert bed.ended


def test_wake_with_too_little_free_vram_is_a_cold_start(bed: Bed, gpu: Path) -> None:
    """An engine that was woken beside a game ran out of memory and died."""
    with bed.engine(weights_bytes=4 * GIB, kv_bytes=GIB):
        bed.release(weights_bytes=4 * GIB, device="gpu")
        gpu.write_text(f"{8 * GIB} 1:{8 * GIB}\n")  # of 12
        done = bed.wake(device="gpu")
        assert f"it needs {5 * GIB} bytes of VRAM, but " in done.stderr
        assert bed.ended
        assert bed.phases("wake")["outcome"] == "cold"
    assert bed.events() == ["sleep"]


def test_wake_asks_for_the_vram_that_it_freed_and_no_more(bed: Bed, gpu: Path) -> None:
    with bed.engine(weights_bytes=4 * GIB, kv_bytes=GIB):
        bed.release(weights_bytes=4 * GIB, device="gpu")
        gpu.write_text(f"{6 * GIB} 1:{6 * GIB}\n")
        assert (bed.wake(device="gpu").stderr, bed.ended) == ("", False)


def test_wake_that_fails_waits_for_the_gpu_before_the_cold_start(bed: Bed, gpu: Path) -> None:
    with bed.engine(weights_bytes=GIB, wake_lies=True):
        bed.release(device="gpu")
        assert "GPU free after" in bed.wake(device="gpu").stdout


def _ended_pid() -> int:
    """Return the number of a process that has ended."""
    process = subprocess.Popen(["/bin/true"])
    process.wait(_SECONDS)
    return process.pid


# --- timeouts


def test_wait_for_the_planner_is_longer_than_a_demotion() -> None:
    constants = re.findall(r"^(_\w+_SECONDS) = ([\d.]+)", (HOOKS / "wake.py").read_text(), re.MULTILINE)
    wake = sum(float(seconds) for _, seconds in constants)
    end = 15 + 5  # vLLM's TimeoutStopSec=, and the time that the driver may take
    sleep = (
        Hooks(ready=(), gate=(), wake=(), release=(), wait_released=()).sleep_seconds + 60
    )  # the token's TimeoutStopSec=
    assert wake + end + sleep < lock._PLANNER_TIMEOUT_SECONDS


# --- failures of the hook itself


def test_release_that_fails_ends_the_engine(bed: Bed) -> None:
    with bed.engine():
        with pytest.raises(AssertionError, match="Traceback"):
            bed.release(levels="nonsense", weights_bytes=0)
        (bed.folder / "level").write_text("nonsense")
        with pytest.raises(AssertionError, match="Traceback"):
            bed.release()
        assert bed.ended


def test_wake_imports_few_modules(bed: Bed) -> None:
    words = [sys.executable, "-I", "-S", "-X", "importtime", str(HOOKS / "wake.py"), UNIT, "/none", "embed", "1", "cpu"]
    words += ["a", str(bed.folder.parent), "0", "ram=1/2"]
    bed.state = "inactive"
    bed.run("wake", UNIT, "/none/a.sock", "embed", "1", "cpu")  # so that systemctl has something to show
    done = subprocess.run(words, env=bed.environment, capture_output=True, text=True, check=True, timeout=_SECONDS)
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert "engine" in imported
    assert not imported & {"ctypes", "json", "re", "signal", "socket", "http.client", "subprocess", "pathlib", "typing"}
