"""The command line as a process: exit statuses, two lines on stderr, only data on stdout."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from mmd.errors import ManagerUnreachable
from mmd.paths import config_file
from mmd.registry.store import Registry
from mmd.units.bus import Manager
from tests.tiny_models import sparse_gguf
from tests.user_manager import UserManager

ROOT = Path(__file__).parents[3]
VERBS = (
    *("add", "list", "show", "verify", "remove", "archive", "restore", "disk"),
    *("activate", "sleep", "stop", "status", "logs", "install", "gateway"),
)
# Modules that help must not import; each costs milliseconds.
HEAVY = {"dbus_fast", "httpx", "psutil", "pynvml", "tomlkit", "starlette", "uvicorn", "huggingface_hub", "asyncio"}


def mmd(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `mmd` in the test's own home, without a user manager."""
    return subprocess.run(
        [sys.executable, "-m", "mmd", *words],
        cwd=ROOT,
        env=os.environ | environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
    )


def refused(done: subprocess.CompletedProcess[str], status: int) -> tuple[str, str]:
    """Return message and hint, the two lines on stderr; nothing else may be printed."""
    assert done.returncode == status, done.stderr
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert len(lines) == 2, done.stderr
    what_is, what_to_do = lines
    assert what_is.startswith("mmd: ")
    assert what_to_do.startswith("  → ")
    return what_is.removeprefix("mmd: "), what_to_do.removeprefix("  → ")


@pytest.fixture
def a_model(tmp_path: Path) -> Path:
    """Register a model in this process: 50 times faster than `mmd add`."""
    path = sparse_gguf(tmp_path / "tiny.gguf")
    Registry().add(path)
    return path


@pytest.fixture
def engine_on_path(fake_llama_server: Path) -> Path:
    return fake_llama_server


@pytest.fixture
def no_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide llama-server and xllamacpp."""
    folder = tmp_path / "blocker"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text("import sys\nsys.modules['xllamacpp'] = None\n")
    monkeypatch.setenv("PYTHONPATH", str(folder))
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))


# --- wrong usage: 2


@pytest.mark.parametrize(
    ("words", "what_is", "what_to_do"),
    [
        (("frobnicate",), "No such command 'frobnicate'", "mmd --help"),
        (("list", "--jsn"), "'--jsn'", "mmd list --help"),
        (("show",), "Missing argument", "mmd show --help"),
        (("list", "too", "much"), "unexpected extra arguments", "mmd list --help"),
        (("logs", "a", "-n", "many"), "'many'", "mmd logs --help"),
    ],
)
def test_wrong_usage(words: tuple[str, ...], what_is: str, what_to_do: str) -> None:
    said, hint = refused(mmd(*words), 2)
    assert what_is in said
    assert hint == what_to_do


def test_without_a_verb_the_help_is_shown() -> None:
    done = mmd()
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("Usage: mmd ")


def test_wrong_settings_are_wrong_usage(own_home: Path, a_model: Path, engine_on_path: Path) -> None:
    file = own_home / ".config/mmd/mmd.toml"
    file.parent.mkdir(parents=True)
    file.write_text("[gateway]\nport = 1\n")
    said, hint = refused(mmd("activate", "tiny"), 2)
    assert "gateway.port" in said
    assert str(file) in hint


def test_machine_file_that_is_none(a_model: Path, engine_on_path: Path, tmp_path: Path) -> None:
    (tmp_path / "machine.json").write_text('{"gpus": 3}')
    said, _ = refused(mmd("show", "tiny", "--machine", str(tmp_path / "machine.json")), 2)
    assert "gpus" in said


# --- no such model: 3


def is_no_such_model(done: subprocess.CompletedProcess[str]) -> None:
    said, hint = refused(done, 3)
    assert "'tinny'" in said
    assert "'tiny'" in said
    assert hint.startswith("mmd ")


@pytest.mark.parametrize("verb", ["show", "logs"])
def test_unknown_model_is_told_with_the_nearest(verb: str, a_model: Path) -> None:
    is_no_such_model(mmd(verb, "tinny"))


@pytest.mark.manager
@pytest.mark.parametrize("verb", ["remove", "activate", "sleep", "stop"])
def test_unknown_model_is_told_by_verbs_about_what_runs(verb: str, systemd: UserManager, a_model: Path) -> None:
    is_no_such_model(mmd(verb, "tinny"))


@pytest.mark.manager
@pytest.mark.parametrize(("verb", "said"), [("sleep", "tiny is not loaded"), ("stop", "tiny is not running")])
def test_model_that_never_ran_has_nothing_to_end(verb: str, said: str, systemd: UserManager, a_model: Path) -> None:
    """`mmd sleep` of a model without a unit ended in a KeyError."""
    done = mmd(verb, "tiny")
    assert (done.returncode, done.stdout) == (0, "")
    assert said in done.stderr


@pytest.mark.manager
def test_sleep_at_a_level_that_the_engine_does_not_have(
    systemd: UserManager, a_model: Path, engine_on_path: Path
) -> None:
    said, hint = refused(mmd("sleep", "tiny", "--level", "2"), 2)
    assert "tiny cannot sleep at level 2: its engine cannot sleep" in said
    assert "mmd sleep tiny" in hint


def test_unknown_model_where_there_are_none() -> None:
    _, hint = refused(mmd("show", "tiny"), 3)
    assert "mmd add" in hint


# --- does not fit: 4


def test_model_that_does_not_fit(a_model: Path, engine_on_path: Path, tmp_path: Path) -> None:
    small = json.loads((ROOT / "tests/machines/cpu-only.json").read_text()) | {"ram_total_bytes": 2**30}
    (tmp_path / "small.json").write_text(json.dumps(small))
    done = mmd("show", "tiny", "--machine", str(tmp_path / "small.json"))
    assert done.returncode == 4
    said, hint = done.stderr.splitlines()
    assert "tiny needs at least" in said
    assert hint.startswith("  → ")
    assert "llama" in done.stdout, "the facts are printed anyway"


# --- no engine: 5


@pytest.mark.usefixtures("a_model", "no_engine")
def test_no_engine_is_told_by_show() -> None:
    done = mmd("show", "tiny")
    assert done.returncode == 5
    said, hint = done.stderr.splitlines()
    assert "no engine for GGUF" in said
    assert "pip install" in hint


def test_engine_in_the_settings_that_is_not_there(own_home: Path, a_model: Path) -> None:
    file = own_home / ".config/mmd/mmd.toml"
    file.parent.mkdir(parents=True)
    file.write_text('[engines]\nllama-server = "/nonexistent/llama-server"\n')
    done = mmd("show", "tiny")
    assert done.returncode == 5
    assert "/nonexistent/llama-server" in done.stderr


# --- other failures: 1


def test_no_user_manager(a_model: Path) -> None:
    said, hint = refused(mmd("status"), 1)
    assert said.startswith("no systemd user manager answers on unix:path=")
    assert "loginctl enable-linger" in hint


@pytest.mark.parametrize("verb", ["activate", "sleep", "stop", "remove"])
def test_no_user_manager_for_a_verb_that_needs_one(verb: str, a_model: Path, engine_on_path: Path) -> None:
    said, _ = refused(mmd(verb, "tiny"), 1)
    assert "no systemd user manager" in said


@pytest.mark.parametrize("address", ["garbage", "autolaunch:", "unix:abstract=/nobody", "tcp:host=127.0.0.1,port=1"])
async def test_no_user_manager_at_an_odd_address(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DBUS_SESSION_BUS_ADDRESS", address)
    with pytest.raises(ManagerUnreachable) as caught:
        await Manager.connect()
    assert address in caught.value.message


@pytest.mark.parametrize("verb", ["list", "show"])
def test_damaged_registry(verb: str, a_model: Path, own_home: Path) -> None:
    file = own_home / ".local/share/mmd/models.json"
    file.write_text('{"version":1,\n[[[\n')
    said, hint = refused(mmd(*((verb,) if verb == "list" else (verb, "tiny"))), 1)
    assert str(file) in said
    assert "line 2" in said
    assert str(file) in hint
    assert file.read_text() == '{"version":1,\n[[[\n', "it is never overwritten"


def test_model_whose_file_is_gone(a_model: Path, engine_on_path: Path) -> None:
    a_model.unlink()
    done = mmd("show", "tiny")
    assert done.returncode == 1
    said, hint = done.stderr.splitlines()
    assert str(a_model) in said
    assert "mmd remove tiny" in hint


def test_file_without_a_model(tmp_path: Path) -> None:
    (tmp_path / "notes.gguf").write_text("not a model\n")
    said, _ = refused(mmd("add", str(tmp_path / "notes.gguf")), 1)
    assert "notes.gguf" in said


def test_closed_pipe_of_a_reader_is_not_an_error(a_model: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "mmd", "list"], cwd=ROOT, stdout=writer, stderr=subprocess.PIPE, check=False, timeout=50
    )
    os.close(writer)
    assert b"Traceback" not in done.stderr
    assert b"BrokenPipe" not in done.stderr


# --- data and messages


def test_add_prints_the_id_alone(tmp_path: Path) -> None:
    done = mmd("add", str(sparse_gguf(tmp_path / "some.gguf")), "--id", "mine")
    assert (done.returncode, done.stdout) == (0, "mine\n")
    assert "mmd activate mine" in done.stderr


def test_list_without_models_is_talk() -> None:
    done = mmd("list")
    assert (done.returncode, done.stdout) == (0, "")
    assert "mmd add" in done.stderr


def test_list_is_a_table_without_a_user_manager_too(a_model: Path) -> None:
    done = mmd("list")
    heading, row = done.stdout.splitlines()
    assert heading.split() == ["ID", "TYPE", "QUANT", "SIZE", "CONTEXT", "STATUS"]
    assert row.split()[0] == "tiny"
    assert row.split()[-1] == "absent"
    assert "user manager" in done.stderr, "that nobody knows what runs is said beside it"


def test_list_of_nothing_as_json_is_an_empty_list() -> None:
    assert json.loads(mmd("list", "--json").stdout) == []


def test_add_list_and_show_as_json(tmp_path: Path, engine_on_path: Path) -> None:
    path = sparse_gguf(tmp_path / "tiny.gguf")
    added = json.loads(mmd("add", str(path), "--json").stdout)
    assert [added] == json.loads(mmd("list", "--json").stdout)
    shown = json.loads(mmd("show", "tiny", "--json").stdout)
    launch = shown.pop("launch")
    assert shown.items() >= added.items()
    assert launch["argv"][:3] == [str(engine_on_path), "-m", str(path)]
    assert all(flag["reason"] for flag in launch["flags"])


def test_show_prints_the_command_and_a_reason_for_each_flag(a_model: Path, engine_on_path: Path) -> None:
    machine = ROOT / "tests/machines/rtx4070-12g.json"
    done = mmd("show", "tiny", "--machine", str(machine))
    assert done.returncode == 0, done.stderr
    assert f"{engine_on_path} -m {a_model} --host" in done.stdout
    assert "left to the engine: as many as fit on the GPU" in done.stdout


def test_show_says_where_the_model_would_lie(a_model: Path, engine_on_path: Path) -> None:
    machine = str(ROOT / "tests/machines/several/rtx3090-2x24g.json")
    assert re.search(r"^  place +\d\.\d GiB of GPU 0$", mmd("show", "tiny", "--machine", machine).stdout, re.MULTILINE)
    shown = json.loads(mmd("show", "tiny", "--machine", machine, "--json").stdout)
    assert shown["place"]["devices"].keys() == {"GPU-3a1c07d2"}
    assert shown["launch"]["environment"]["CUDA_VISIBLE_DEVICES"] == "GPU-3a1c07d2-51f0-4d0e-8a8b-0d1f5f0c3090"
    in_ram = mmd("show", "tiny", "--machine", str(ROOT / "tests/machines/cpu-only.json")).stdout
    assert " MiB of RAM\n" in in_ram or " GiB of RAM\n" in in_ram


def test_show_tells_what_happens_to_an_idle_model(a_model: Path, engine_on_path: Path) -> None:
    machine = ROOT / "tests/machines/cpu-only.json"
    assert "stays loaded until its memory is needed" in mmd("show", "tiny", "--machine", str(machine)).stdout
    config_file().parent.mkdir(parents=True, exist_ok=True)
    config_file().write_text("[gateway]\nidle_sleep_seconds = 600\nidle_stop_seconds = 60\n")
    shown = mmd("show", "tiny", "--machine", str(machine)).stdout
    assert "stops after 600 s\n" in shown, "llama.cpp cannot sleep"
    config_file().write_text("[models.tiny]\npinned = true\n")
    assert "it is pinned" in mmd("show", "tiny", "--machine", str(machine)).stdout


def test_show_prints_the_units(a_model: Path, engine_on_path: Path) -> None:
    text = mmd("show", "tiny", "--units").stdout
    assert "# mmd-resident@tiny.service\n[Unit]\n" in text
    assert "# mmd-model@tiny.service\n[Unit]\n" in text
    assert "Type=exec\n" in text


def test_version() -> None:
    assert mmd("--version").stdout == "mmd 0.2.0\n"


# --- completion and help


def test_completion_lists_ids(a_model: Path) -> None:
    done = mmd(_MMD_COMPLETE="bash_complete", COMP_WORDS="mmd show t", COMP_CWORD="2")
    assert done.stdout.splitlines() == ["plain,tiny"]
    assert mmd(_MMD_COMPLETE="bash_complete", COMP_WORDS="mmd show x", COMP_CWORD="2").stdout.strip() == ""


def test_completion_says_nothing_about_a_damaged_registry(a_model: Path, own_home: Path) -> None:
    (own_home / ".local/share/mmd/models.json").write_text("[[[\n")
    done = mmd(_MMD_COMPLETE="bash_complete", COMP_WORDS="mmd show ", COMP_CWORD="2")
    assert (done.stdout.strip(), done.stderr) == ("", "")


def test_help_lists_the_verbs_in_the_order_of_use() -> None:
    listed = [line.split()[0] for line in mmd("--help").stdout.partition("Commands:\n")[2].splitlines()]
    assert [verb for verb in listed if verb in VERBS] == list(VERBS)


def imported(*words: str, **environment: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "mmd", *words],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
    )
    lines = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    return {line.rpartition("|")[2].strip() for line in lines}


@pytest.mark.parametrize("words", [("--help",), ("activate", "--help")], ids=" ".join)
def test_help_imports_nothing_heavy(words: tuple[str, ...]) -> None:
    modules = imported(*words)
    assert "click" in modules
    assert not modules & HEAVY


def test_completion_imports_nothing_heavy(a_model: Path) -> None:
    assert not imported(_MMD_COMPLETE="bash_complete", COMP_WORDS="mmd show ", COMP_CWORD="2") & HEAVY


@pytest.mark.parametrize(("verb", "collects"), [("machine", True), ("list", False)])
def test_garbage_collection_is_off_only_in_short_verbs(verb: str, collects: bool) -> None:
    code = (
        "import gc, sys; from mmd.cli import main\n"
        f"sys.argv = ['mmd', '{verb}']\n"
        "try: main()\nexcept SystemExit: print(gc.isenabled())"
    )
    shown = subprocess.run((sys.executable, "-c", code), capture_output=True, text=True, timeout=30, check=True)
    assert shown.stdout.splitlines()[-1] == str(collects)
