"""Leases with real units: the program's own terminal, signals and exit status, and everything that can end a lease."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mmd.control.state.last_resident import last_resident, record_now
from tests.fakes.nvml import FakeGpus
from tests.fakes.vram import hold
from tests.systemd.world import REPOSITORY, World, run_mmd, wait_for
from tests.terminal import PROMPT, Terminal

_RELEASE_SECONDS = 1.0
_COME_BACK_SECONDS = 30.0


@pytest.fixture
def restores(world: World) -> Iterator[World]:
    """Let the units that restore models run mmd of this checkout, with the registry of the test."""
    variables = {"PYTHONPATH": str(REPOSITORY), "PATH": os.environ["PATH"]}
    for name in ("XDG_DATA_HOME", "XDG_STATE_HOME", "XDG_CONFIG_HOME"):
        variables[name] = os.environ.get(name) or f"{os.environ['HOME']}/{_FALLBACKS[name]}"
    world.manager.systemctl("set-environment", *(f"{name}={value}" for name, value in variables.items()))
    yield world
    for units in ("mmd-lease@*", "mmd-back@*"):  # before the world closes, where a restore would begin
        world.manager.systemctl("stop", units)
    world.manager.systemctl("unset-environment", *variables)


@pytest.fixture
def gpus(restores: World) -> FakeGpus:
    """One GPU of 24 GB."""
    restores.settings("", residency="many")
    return restores.add_gpus(24)


_FALLBACKS = {"XDG_DATA_HOME": ".local/share", "XDG_STATE_HOME": ".local/state", "XDG_CONFIG_HOME": ".config"}


_started: list[subprocess.Popen[str]] = []


@pytest.fixture(autouse=True)
def no_process_left() -> Iterator[None]:
    """Kill what a failed test leaves behind."""
    yield
    for process in _started:
        if process.poll() is None:
            end(process)
    _started.clear()


def lease(*words: str, **how: Any) -> subprocess.Popen[str]:
    how.setdefault("stderr", subprocess.DEVNULL)
    process = subprocess.Popen([sys.executable, "-m", "mmd", "lease", *words], cwd=REPOSITORY, text=True, **how)
    _started.append(process)
    return process


def program(*words: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(words, text=True)
    _started.append(process)
    return process


def end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate(timeout=20)


def leases() -> dict[str, dict[str, Any]]:
    done = run_mmd("lease", "list", "--json")
    return {one["name"]: one for one in json.loads(done.stdout)}


def status() -> dict[str, Any]:
    record: dict[str, Any] = json.loads(run_mmd("status", "--json").stdout)
    return record


def resident() -> set[str]:
    return {one["id"] for one in status()["resident"]}


def until_back(*names: str) -> None:
    wait_for(lambda: resident() == set(names), what=f"{names} restored", seconds=_COME_BACK_SECONDS)


def seconds_until(condition: Callable[[], bool]) -> float:
    began = time.monotonic()
    wait_for(condition, what="in time", seconds=20)
    return time.monotonic() - began


def is_leased(world: World, name: str) -> bool:
    return (world.manager.runtime / f"mmd/lease@{name}~gpu/held").exists()


@pytest.fixture
def chat(world: World, gpus: FakeGpus) -> str:
    """A model of 14 GB that is resident on the one GPU."""
    world.add_sized("chat", 14)
    done = run_mmd("activate", "chat", "--now")
    assert done.returncode == 0, done.stderr
    return "chat"


def test_program_keeps_its_exit_status_and_its_output(world: World, chat: str, gpus: FakeGpus) -> None:
    script = 'read word; echo "$word $CUDA_VISIBLE_DEVICES $MMD_LEASE $MMD_SHARE"; echo no >&2; exit 7'
    program = lease("--", "sh", "-c", script, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    out, err = program.communicate("hello\n", timeout=60)
    assert (program.returncode, out) == (7, f"hello {gpus.devices[0]} sh {gpus.devices[0]}=24320\n")
    assert err == "chat unloaded for the lease sh\nno\n"
    assert seconds_until(lambda: not is_leased(world, "sh")) < _RELEASE_SECONDS
    until_back("chat")


def test_small_lease_unloads_nothing(world: World, chat: str) -> None:
    done = run_mmd("lease", "--vram", "1G", "--name", "small", "--", "true")
    assert (done.returncode, done.stderr) == (0, "")
    assert resident() == {"chat"}


async def test_unloaded_model_counts_as_resident_for_the_next_boot(world: World, chat: str) -> None:
    """A machine that goes down during a game restored nothing."""
    program = lease("--name", "game", "--", "sleep", "600")
    await asyncio.to_thread(wait_for, lambda: is_leased(world, "game"), what="leased")
    await record_now()
    assert (last_resident(), await asyncio.to_thread(resident)) == (("chat",), set())
    end(program)
    await asyncio.to_thread(until_back, "chat")


def test_program_that_is_missing_unloads_nothing(chat: str) -> None:
    done = run_mmd("lease", "--", "no-such-program")
    assert done.returncode == 127
    assert "no-such-program" in done.stderr
    assert resident() == {"chat"}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGINT])
def test_death_of_the_program_releases(world: World, chat: str, number: signal.Signals) -> None:
    program = lease("--", "sleep", "600")
    wait_for(lambda: is_leased(world, "sleep"), what="leased")
    wait_for(lambda: Path(f"/proc/{program.pid}/comm").read_text() == "sleep\n", what="the program runs")
    assert leases()["sleep"]["pid"] == program.pid
    program.send_signal(number)
    assert program.wait(20) == -number
    assert seconds_until(lambda: not is_leased(world, "sleep")) < _RELEASE_SECONDS
    until_back("chat")


def test_program_gets_the_signals_as_from_a_shell(gpus: FakeGpus) -> None:
    """Python ignores SIGPIPE, and a program that it becomes would inherit that."""
    done = run_mmd("lease", "--vram", "1G", "--", "sh", "-c", "kill -PIPE $$; echo alive")
    assert (done.returncode, done.stdout) == (-signal.SIGPIPE, "")


def test_program_has_the_terminal(gpus: FakeGpus, world: World, tmp_path: Path) -> None:
    """It reads keys and gets Ctrl-C like any program of the shell, and the shell's next command runs."""
    program = tmp_path / "program.py"
    program.write_text('import os, time\nprint(os.ttyname(0), flush=True)\nprint("got", input())\ntime.sleep(600)\n')
    with Terminal(["sh", "-i"], os.environ | {"PS1": PROMPT}, REPOSITORY) as terminal:
        terminal.wait_shown(PROMPT)
        terminal.type(f"{sys.executable} -m mmd lease --vram 1G --name x -- {sys.executable} {program}\r")
        terminal.wait_shown("/dev/pts/")
        terminal.type("hello\r")
        terminal.wait_shown("got hello")
        assert is_leased(world, "x")
        terminal.type("\x03")
        terminal.wait_shown(PROMPT)
        terminal.type("echo status $?\r")
        terminal.wait_shown("status 130")
    wait_for(lambda: not is_leased(world, "x"), what="released")


def test_children_keep_the_lease(gpus: FakeGpus, world: World, tmp_path: Path) -> None:
    """A launcher starts a game and ends; the game inherits the lease."""
    done = run_mmd(
        "lease",
        "--vram",
        "1G",
        "--name",
        "game",
        "--",
        "sh",
        "-c",
        f"sleep 600 >/dev/null 2>&1 & echo $! > {tmp_path}/pid",
    )
    assert done.returncode == 0
    assert is_leased(world, "game")
    os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)
    assert seconds_until(lambda: not is_leased(world, "game")) < _RELEASE_SECONDS


def test_program_that_closes_its_descriptors_keeps_the_lease(gpus: FakeGpus, world: World) -> None:
    program = lease(
        "--vram",
        "1G",
        "--name",
        "x",
        "--",
        sys.executable,
        "-c",
        "import os, time; os.closerange(3, 99); time.sleep(600)",
    )
    wait_for(lambda: is_leased(world, "x"), what="leased")
    wait_for(lambda: len([*Path(f"/proc/{program.pid}/fd").iterdir()]) <= 3, what="descriptors closed")
    time.sleep(0.2)
    assert is_leased(world, "x")
    end(program)
    assert seconds_until(lambda: not is_leased(world, "x")) < _RELEASE_SECONDS


# --- without a program


def test_lease_alone_lasts_until_ctrl_c(chat: str, world: World) -> None:
    holder = lease("--name", "mine", stderr=subprocess.PIPE)
    wait_for(lambda: is_leased(world, "mine"), what="leased")
    assert leases()["mine"]["state"] == "held"
    assert resident() == set()
    holder.send_signal(signal.SIGINT)
    _, err = holder.communicate(timeout=20)
    assert holder.returncode == 0
    assert "The lease mine has 23.8 GiB of GPU-000000a0. End it: Ctrl-C" in err
    until_back("chat")


def test_lease_alone_ends_when_another_command_ends_it(gpus: FakeGpus, world: World) -> None:
    holder = lease("--name", "mine", stderr=subprocess.PIPE)
    wait_for(lambda: is_leased(world, "mine"), what="leased")
    ended = run_mmd("lease", "end", "mine")
    assert (ended.returncode, "has ended" in ended.stderr) == (0, True)
    _, err = holder.communicate(timeout=20)
    assert (holder.returncode, "The lease mine has ended." in err) == (0, True)
    gone = run_mmd("lease", "end", "mine")
    assert (gone.returncode, "there is no lease mine" in gone.stderr) == (3, True)


@pytest.mark.parametrize("unit", ["mmd-lease@mine.service", "mmd-resident@lease@mine.service"])
def test_lease_is_ended_by_systemctl(chat: str, world: World, unit: str) -> None:
    holder = lease("--name", "mine")
    wait_for(lambda: is_leased(world, "mine"), what="leased")
    world.manager.systemctl("stop", unit)
    assert holder.wait(20) == 0
    until_back("chat")


def test_program_outlives_a_lease_that_is_ended(gpus: FakeGpus, world: World) -> None:
    program = lease("--vram", "1G", "--", "sleep", "600")
    wait_for(lambda: is_leased(world, "sleep"), what="leased")
    ended = run_mmd("lease", "end", "sleep")
    assert f"Process {program.pid} keeps running" in ended.stderr
    assert program.poll() is None
    end(program)


# --- refusals, and what leases do to each other


def test_lease_that_is_too_large_is_refused(chat: str) -> None:
    done = run_mmd("lease", "--vram", "30G", "--", "true")
    assert done.returncode == 4
    assert "the lease true (30.0 GiB) does not fit: 6.2 GiB more are needed" in done.stderr
    assert resident() == {"chat"}


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--vram", "much", "--", "true"], "'much' is not a size"),
        (["--gpu", "7", "--", "true"], "there is no GPU 7; there are: 0 (NVIDIA Fake 24 GB)"),
        (["--name", "Bad Name", "--", "true"], "cannot be the name of a lease"),
        (["--name", "games", "--", "true"], "cannot be the name of a lease"),
        (["--"], "there is no command after --"),
        (["true"], "a program comes after two hyphens: mmd lease -- true"),
        (["--vram", "1G", "list"], "has no such option"),
    ],
)
def test_wrong_lease_says_what_is_wrong(gpus: FakeGpus, words: list[str], says: str) -> None:
    done = run_mmd("lease", *words)
    assert (done.returncode, says in done.stderr) == (2, True), done.stderr


def test_second_lease_names_the_holder_of_the_memory(gpus: FakeGpus, world: World) -> None:
    holder = lease("--vram", "20G", "--name", "train")
    wait_for(lambda: is_leased(world, "train"), what="leased")
    again = run_mmd("lease", "--name", "train", "--vram", "1G", "--", "true")
    assert (again.returncode, "there is a lease train already" in again.stderr) == (4, True)
    refused = run_mmd("lease", "--", "true")
    assert refused.returncode == 4
    assert "the lease train has 20480 MiB of GPU-000000a0" in refused.stderr
    assert "mmd lease end train" in refused.stderr
    assert run_mmd("lease", "--vram", "3G", "--", "true").returncode == 0
    end(holder)


def test_pinned_model_stays_unless_the_user_says_so(world: World, gpus: FakeGpus) -> None:
    world.add_sized("chat", 14)
    world.settings("[models.chat]\npinned = true\n", residency="many")
    assert run_mmd("activate", "chat", "--now").returncode == 0
    refused = run_mmd("lease", "--", "true")
    assert (refused.returncode, "chat, which is pinned, has" in refused.stderr) == (4, True), refused.stderr
    assert run_mmd("lease", "--unload-pinned", "--", "true").returncode == 0
    until_back("chat")


@pytest.mark.parametrize("first", ["outer", "inner"])
def test_lease_that_ends_last_restores_all(world: World, gpus: FakeGpus, first: str) -> None:
    """The models of both leases come back when there is room for them, whichever lease ends first."""
    world.add_sized("chat", 12)
    world.add_sized("embed", 1, embedding=True)
    for name in ("chat", "embed"):
        assert run_mmd("activate", name, "--now").returncode == 0
    assert resident() == {"chat", "embed"}
    holders = {"outer": lease("--vram", "16G", "--name", "outer")}
    wait_for(lambda: is_leased(world, "outer"), what="leased")
    assert resident() == {"embed"}
    holders["inner"] = lease("--vram", "7G", "--name", "inner")
    wait_for(lambda: is_leased(world, "inner"), what="leased")
    assert resident() == set()
    end(holders.pop(first))
    wait_for(lambda: not is_leased(world, first), what="released")
    ((_, last),) = holders.items()
    until_back("chat") if first == "outer" else until_back("embed")
    end(last)
    until_back("chat", "embed")


def test_next_lease_does_not_wait_for_the_restore_after_the_last(chat: str, world: World) -> None:
    """In a loop of leases, each one waited until the model had been loaded, and unloaded it again."""
    world.behave("chat", load_seconds=600)
    assert run_mmd("lease", "--", "true").returncode == 0
    wait_for(lambda: [one["id"] for one in status()["starting"]] == ["chat"], what="it is restored")
    world.behave("chat")
    assert run_mmd("lease", "--", "true").returncode == 0
    until_back("chat")


def test_model_does_not_take_the_memory_of_a_lease(chat: str, world: World) -> None:
    holder = lease("--name", "game")
    wait_for(lambda: is_leased(world, "game"), what="leased")
    refused = run_mmd("activate", "chat", "--now")
    assert refused.returncode == 1
    assert "the lease game" in refused.stderr, refused.stderr
    assert "mmd lease end game" in refused.stderr
    end(holder)
    until_back("chat")


# --- bad luck


def test_lease_waits_for_a_model_that_loads(world: World, gpus: FakeGpus) -> None:
    world.add_sized("slow", 14, load_seconds=600)
    loading = subprocess.Popen(
        [sys.executable, "-m", "mmd", "activate", "slow", "--now"], cwd=REPOSITORY, stderr=subprocess.DEVNULL
    )
    wait_for(lambda: [one["id"] for one in status()["starting"]] == ["slow"], what="it loads")
    done = run_mmd("lease", "--", "true")
    assert (done.returncode, done.stderr) == (0, "slow unloaded for the lease true\n")
    loading.wait(20)


@pytest.mark.parametrize("seconds", [0.0, 0.15, 0.25, 0.3, 0.35, 0.4, 0.5, 0.7])
def test_lease_command_that_is_killed_leaves_nothing(chat: str, world: World, seconds: float) -> None:
    holder = lease("--name", "x")
    time.sleep(seconds)  # it dies at one moment or another
    end(holder)

    def is_over() -> bool:
        listed = world.manager.systemctl(
            "list-units",
            "--all",
            "--plain",
            "--no-legend",
            "mmd-lease@*",
            "mmd-back@*",
            "mmd-swap-*",
            "mmd-resident@lease*",
        )
        return not listed.strip()

    wait_for(is_over, what="no unit of the lease")
    until_back("chat")


def test_another_programs_memory_is_not_leased(chat: str, world: World, gpus: FakeGpus) -> None:
    """The whole of a card is what models can have of it; a program without a lease keeps what it has."""
    foreign = program("sleep", "600")
    hold(foreign.pid, {gpus.devices[0]: 3 * 1024**3})
    holder = lease("--name", "x")
    wait_for(lambda: is_leased(world, "x"), what="leased")
    assert leases()["x"]["devices"] == {gpus.devices[0]: (24 - 3) * 1024**3 - 256 * 1024**2}
    end(holder)
    until_back("chat")
    assert run_mmd("stop", "chat").returncode == 0
    hold(foreign.pid, {gpus.devices[0]: 15 * 1024**3})
    refused = run_mmd("lease", "--vram", "20G", "--", "true")
    assert refused.returncode == 4
    assert f"other programs use 15.0 GiB of {gpus.devices[0]}, sleep most of it" in refused.stderr, refused.stderr
    assert run_mmd("activate", "chat", "--now").returncode == 0
    [chat_now] = status()["resident"]
    assert chat_now["devices"] == {gpus.devices[0]: (24 - 15) * 1024**3 - 256 * 1024**2}, "the rest runs on the CPU"


def test_memory_of_a_leases_program_is_counted_once(world: World, gpus: FakeGpus) -> None:
    world.add_sized("chat", 12)
    program = lease("--vram", "8G", "--", "sleep", "600")
    wait_for(lambda: is_leased(world, "sleep"), what="leased")
    hold(program.pid, {gpus.devices[0]: 7 * 1024**3})
    done = run_mmd("activate", "chat", "--now")
    assert done.returncode == 0, done.stderr
    end(program)


def test_lease_counts_until_the_driver_has_freed_its_memory(world: World, gpus: FakeGpus) -> None:
    for _ in range(5):
        program = lease("--vram", "8G", "--", "sleep", "600")
        wait_for(lambda: is_leased(world, "sleep"), what="leased")
        hold(program.pid, {gpus.devices[0]: 7 * 1024**3})
        end(program)
        wait_for(lambda: not (world.manager.runtime / "mmd/lease@sleep~gpu").exists(), what="released")
        assert gpus.used_mib() == (0,)
        wait_for(lambda: not leases(), what="the name is free")


# --- a machine without a GPU


def test_lease_on_a_machine_without_a_gpu_is_of_its_ram(restores: World) -> None:
    restores.add("tiny")
    assert run_mmd("activate", "tiny", "--now").returncode == 0
    script = "echo ${CUDA_VISIBLE_DEVICES-none} $MMD_SHARE"
    small = run_mmd("lease", "--vram", "512M", "--", "sh", "-c", script)
    assert (small.returncode, small.stdout) == (0, "none ram=512\n"), small.stderr
    until_back("tiny")
    with lease(stderr=subprocess.PIPE) as holder:
        wait_for(lambda: "lease" in leases(), what="leased")
        wait_for(lambda: resident() == set(), what="unloaded")
        holder.send_signal(signal.SIGINT)
        _, err = holder.communicate(timeout=20)
    assert " of RAM. End it: Ctrl-C" in err
    until_back("tiny")
