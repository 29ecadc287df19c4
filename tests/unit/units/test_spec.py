"""A launch as units: the D-Bus properties, the text, and how systemd reads both."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmd.plan.launch import Flag, Launch, Sleep, WakeCheck
from mmd.plan.share import read_holding
from mmd.registry.record import ModelType
from mmd.units.directives import Command, Switch, Text
from mmd.units.names import engine_unit, object_path, split, token_unit, unit_of
from mmd.units.spec import (
    FINGERPRINT,
    Admission,
    Hooks,
    UnitSpec,
    engine_spec,
    fingerprint,
    mark_of,
    swap_spec,
    token_spec,
)
from mmd.units.unit_files import UNITS, drop_in_text, mmd_command, unit_text
from tests.user_manager import UserManager

HOOKS = Hooks(
    ready=("/bin/true", "ready"),
    gate=("/bin/true", "gate"),
    wake=("/bin/true", "wake"),
    release=("/bin/true", "release"),
    wait_released=("/bin/true", "wait_released"),
)
LAUNCH = Launch(
    model_id="qwen3-8b",
    engine="llama-server",
    title="llama-server 9611",
    type=ModelType.CHAT,
    argv=("/bin/true", "-m", "/models/qwen3-8b.gguf"),
    environment=(("CUDA_DEVICE_ORDER", "PCI_BUS_ID"),),
    context=0,
    needs_bytes=1,
    socket="/run/user/1000/mmd/qwen3-8b/api.sock",
    share={"GPU-8a3b1c2d": 10240},
    sleep=None,
    ready_seconds=600,
    stop_seconds=5,
    exits_zero_on_crash=False,
    flags=(Flag((), "context", "left to the engine"),),
)
ADMISSION = Admission({"GPU-8a3b1c2d": 23200, "ram": 20000})
ADDRESSES = {"mmd.socket": "127.0.0.1:9000", "mmd-embedding.socket": "[::1]:9085"}
SLEEP = Sleep(levels=(1, 2), weights_bytes=5 * 1024**3, reserve_bytes=2 * 1024**3, wake_check=WakeCheck.GENERATE)
SLEEPER = replace(LAUNCH, sleep=SLEEP)

# The characters of paths and arguments: no NUL anywhere, and no lone surrogates on a command line.
words = st.text(st.characters(exclude_characters="\0\r", exclude_categories=["Cs"]), max_size=20)
awkward = st.lists(
    st.sampled_from(["a b", "", '"', "'", "$", "${HOME}", "$HOME", "%h", "%", "\\", "\\n", "\n", "\t", ";", "ü"])
)
ids = st.from_regex(r"[a-z0-9][a-z0-9._-]{0,63}", fullmatch=True)


def directive(spec: UnitSpec, key: str) -> Any:
    (value,) = (directive.value for directive in spec.directives if directive.name == key)
    return value


def keys(spec: UnitSpec) -> set[str]:
    return {directive.name for directive in spec.directives}


# --- the directives


def test_token_requires_its_engine_and_names_no_other_model() -> None:
    """A token that names another keeps that one loaded when it is dead, and its name is not free."""
    spec = token_spec(LAUNCH, HOOKS, replace(ADMISSION, waits_for=frozenset({"a", "b"})))
    assert directive(spec, "Requires") == directive(spec, "Before") == ("mmd-model@qwen3-8b.service",)
    assert not {"Conflicts", "After"} & keys(spec)


def test_token_with_one_resident_per_device_conflicts() -> None:
    spec = token_spec(LAUNCH, HOOKS, replace(ADMISSION, conflicts=frozenset({"a", "b"})))
    assert directive(spec, "Conflicts") == ("mmd-resident@a.service", "mmd-resident@b.service")
    assert directive(token_spec(LAUNCH, HOOKS, replace(ADMISSION, alone=True)), "ExecStart")[-1] == "alone"


def test_token_cannot_be_started_by_hand() -> None:
    assert directive(token_spec(LAUNCH, HOOKS, ADMISSION), "RefuseManualStart") is True


def test_units_say_what_their_model_holds() -> None:
    launch = replace(SLEEPER, keeps={"GPU-8a3b1c2d": 1280})
    for spec in (token_spec(launch, HOOKS, ADMISSION), engine_spec(launch, HOOKS)):
        assert read_holding(directive(spec, "Description")) == launch.holding
    assert "MMD_SHARE=GPU-8a3b1c2d=10240" in directive(engine_spec(launch, HOOKS), "Environment")


def test_gate_gets_the_share_and_the_models_that_leave() -> None:
    spec = token_spec(LAUNCH, HOOKS, replace(ADMISSION, waits_for=frozenset({"b", "a"})))
    words = "qwen3-8b", "/run/user/1000/mmd", str(HOOKS.gate_seconds), "GPU-8a3b1c2d=10240/23200", "wait=a,b"
    assert directive(spec, "ExecStart") == (*HOOKS.gate, *words)
    assert directive(spec, "TimeoutStartSec") > HOOKS.gate_seconds, "the gate gives up first: it can say why"


def test_swap_starts_tokens_and_stops_leavers() -> None:
    spec = swap_spec("mmd-swap-1x2.slice", ["a", "b"], ["mmd-resident@c.service", "mmd-model@d.service"])
    assert directive(spec, "Wants") == directive(spec, "Before") == ("mmd-resident@a.service", "mmd-resident@b.service")
    assert directive(spec, "Conflicts") == ("mmd-resident@c.service", "mmd-model@d.service")
    assert "[Service]" not in spec.text()


def test_engine_loads_after_the_others_of_its_set() -> None:
    spec = engine_spec(LAUNCH, HOOKS, loads_after=["a"])
    assert directive(spec, "After") == ("mmd-model@a.service",)


def test_engine_that_sleeps_refers_to_no_other_unit() -> None:
    """A dependency from the engine keeps a dead token in memory."""
    assert not {"BindsTo", "PartOf", "Requires", "After", "Before", "Conflicts"} & keys(engine_spec(SLEEPER, HOOKS))


def test_engine_that_cannot_sleep_goes_with_its_token() -> None:
    """Since systemd 255 PropagatesStopTo= has no effect in a swap: the engine kept running beside the next."""
    spec = engine_spec(LAUNCH, HOOKS)
    assert directive(spec, "PartOf") == (token_unit("qwen3-8b"),)
    assert not {"BindsTo", "Requires", "After", "Before", "Conflicts"} & keys(spec)


def test_engine_waits_for_the_driver_when_it_has_ended() -> None:
    """On the engine: a sleeper that dies, or a crashed engine before its restart, must be waited for, too."""
    spec = engine_spec(LAUNCH, HOOKS)
    assert directive(spec, "ExecStopPost") == (*HOOKS.wait_released, engine_unit("qwen3-8b"), LAUNCH.socket)
    assert "ExecStopPost" not in keys(token_spec(LAUNCH, HOOKS, ADMISSION))
    assert "ExecStopPost" not in keys(engine_spec(replace(LAUNCH, share={"ram": 10240}), HOOKS))


def test_token_of_an_engine_that_sleeps_wakes_and_releases_it() -> None:
    spec = token_spec(replace(SLEEPER, keeps={"GPU-8a3b1c2d": 1280}), HOOKS, ADMISSION)
    about = engine_unit("qwen3-8b"), LAUNCH.socket
    assert directive(spec, "ExecStart")[:7] == (*HOOKS.wake, *about, "generate", "600", "gpu")
    memory = "1,2", str(SLEEP.weights_bytes), str(SLEEP.reserve_bytes)
    assert directive(spec, "ExecStopPost") == (*HOOKS.release, *about, "30", *memory, "gpu", "GPU-8a3b1c2d=1280")
    assert "ExecStop" not in keys(spec), "ExecStop= is left out after an interrupted wake"
    assert directive(spec, "TimeoutStopSec") > HOOKS.sleep_seconds, "the hook gives up first, and ends the engine"
    assert directive(spec, "TimeoutStartSec") > LAUNCH.ready_seconds, "so does the hook that reads the weights again"


def test_ready_hook_of_a_sleeper_records_a_fingerprint() -> None:
    assert directive(engine_spec(SLEEPER, HOOKS), "ExecStartPost")[-2:] == ("600", "generate")


def test_engine_starts_only_with_its_token() -> None:
    for launch in (LAUNCH, SLEEPER):
        (folder,) = directive(token_spec(launch, HOOKS, ADMISSION), "RuntimeDirectory")
        assert directive(engine_spec(launch, HOOKS), "ConditionPathExists").endswith(f"/{folder}/held")
    # systemd 254 and newer check no conditions at a restart: an engine that died asleep would be loaded again.
    held = directive(engine_spec(SLEEPER, HOOKS), "ConditionPathExists")
    assert directive(engine_spec(SLEEPER, HOOKS), "ExecCondition") == ("/usr/bin/test", "-e", held)
    assert "ExecCondition" not in keys(engine_spec(LAUNCH, HOOKS)), (
        "its token takes it along, and a swap would wait for it"
    )


def test_ready_hook_gives_up_before_systemd_does() -> None:
    spec = engine_spec(LAUNCH, HOOKS)
    assert directive(spec, "ExecStartPost")[-2:] == (LAUNCH.socket, "600")
    assert directive(spec, "TimeoutStartSec") > 600


def test_socket_is_in_systemds_runtime_directory() -> None:
    spec = engine_spec(LAUNCH, HOOKS)
    (folder,) = directive(spec, "RuntimeDirectory")
    assert LAUNCH.socket.endswith(f"/{folder}/api.sock")
    assert directive(spec, "RuntimeDirectoryMode") == 0o700


# --- properties and text agree

_BUS_NAMES = {key: f"{key.removesuffix('Sec')}USec" for key in ("TimeoutStartSec", "TimeoutStopSec", "RestartSec")}
_BUS_NAMES |= {"StartLimitIntervalSec": "StartLimitIntervalUSec", "ConditionPathExists": "Conditions"}


def specs() -> Iterator[UnitSpec]:
    for launch in (LAUNCH, SLEEPER):
        yield engine_spec(launch, HOOKS)
        yield token_spec(launch, HOOKS, replace(ADMISSION, conflicts=frozenset({"other"})))
    yield swap_spec("mmd-swap-1x2.slice", ["a"], ["mmd-resident@b.service"])


@pytest.mark.parametrize("spec", [*specs()], ids=lambda spec: spec.name)
def test_bus_and_text_agree_directive_by_directive(spec: UnitSpec) -> None:
    on_the_bus = {name: (signature, value) for name, signature, value in spec.properties()}
    in_the_text = parsed(spec.text())
    assert set(on_the_bus) == {_BUS_NAMES.get(key, key) for key in in_the_text}
    assert len(on_the_bus) == len(spec.directives)
    for key, written in in_the_text.items():
        signature, value = on_the_bus[_BUS_NAMES.get(key, key)]
        assert as_bus_value(key, signature, written) == value, key


@pytest.mark.parametrize("spec", [*specs()], ids=lambda spec: spec.name)
def test_bus_values_fit_their_signatures(spec: UnitSpec) -> None:
    from dbus_fast import Message, Variant

    for name, signature, value in spec.properties():
        Message("a.b", "/", "a.b", "C", signature="v", body=[Variant(signature, value)])._marshall(False), name


def parsed(text: str) -> dict[str, list[str]]:
    """Return the directives of a unit file with all their values."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        if line and not line.startswith("["):
            key, _, value = line.partition("=")
            found.setdefault(key, []).append(value)
    return found


def as_bus_value(key: str, signature: str, written: list[str]) -> Any:
    (value,) = written if key != "Environment" else (" ".join(written),)
    match signature:
        case "a(sasb)":
            argv = unquoted(value)
            return [[argv[0], argv, False]]
        case "as":
            return unquoted(value)
        case "a(sbbs)":
            return [[key, False, False, value.replace("%%", "%")]]
        case "(aiai)":
            words = value.split()
            return [[int(word) for word in words if word.isdecimal()], [15 for word in words if word == "SIGTERM"]]
        case "b":
            return {"yes": True, "no": False}[value]
        case "t" if key.endswith("Sec"):
            return int(value) * 1_000_000
        case "u" | "t":
            return int(value, 8 if value.startswith("0") else 10)
        case _:
            return value.replace("%%", "%")


_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "s": " ", "\\": "\\", '"': '"', "'": "'"}


def unquoted(line: str) -> list[str]:
    """Split a value as systemd.syntax(7) describes: quotes around whole words, C escapes, %% for a per cent sign."""
    found: list[str] = []
    at = 0
    while at < len(line):
        if line[at] in " \t":
            at += 1
            continue
        quote = line[at] if line[at] in "\"'" else ""
        at += len(quote)
        word = ""
        while at < len(line) and line[at] not in (quote or " \t"):
            if line[at] == "\\":
                word += _ESCAPES[line[at + 1]]
                at += 2
            elif line[at] == "%":
                assert line[at + 1] == "%", "a specifier, which systemd would expand"
                word += "%"
                at += 2
            else:
                assert line[at] not in "\n\r", "the line would end here"
                word += line[at]
                at += 1
        assert not quote or at < len(line), "a quote that is not closed"
        at += len(quote)
        found.append(word)
    return found


@given(st.lists(words) | awkward)
def test_arguments_survive_the_text(arguments: list[str]) -> None:
    """systemd undoes a doubled `$` when it starts the process, but not in the program's path."""
    spec = engine_spec(replace(LAUNCH, argv=("/opt/a$b c/true", *arguments)), HOOKS)
    (written,) = parsed_raw(spec.text(), "ExecStart")
    assert unquoted(written) == ["/opt/a$b c/true", *(word.replace("$", "$$") for word in arguments)]


@given(st.lists(words) | awkward)
def test_environment_survives_the_text(values: list[str]) -> None:
    environment = tuple((f"V{number}", value) for number, value in enumerate(values))
    spec = engine_spec(replace(LAUNCH, environment=environment), HOOKS)
    read = [word for line in parsed_raw(spec.text(), "Environment") for word in unquoted(line)]
    assert read[:-2] == [f"{name}={value}" for name, value in environment]


def parsed_raw(text: str, key: str) -> list[str]:
    # str.splitlines would also split at \x85 and others; systemd splits at \n only.
    return [line.removeprefix(f"{key}=") for line in text.split("\n") if line.startswith(f"{key}=")]


@given(st.lists(words) | awkward)
def test_arguments_on_the_bus_are_plain_but_for_the_dollar(arguments: list[str]) -> None:
    spec = engine_spec(replace(LAUNCH, argv=("/bin/true", *arguments)), HOOKS)
    (start,) = (value for name, _, value in spec.properties() if name == "ExecStart")
    assert start == [["/bin/true", ["/bin/true", *(word.replace("$", "$$") for word in arguments)], False]]


# --- the fingerprint

_CHANGES: dict[str, Any] = {
    "engine": "embedded",
    "title": "llama-server 1",
    "type": ModelType.EMBEDDING,
    "argv": ("/bin/true",),
    "environment": (),
    "context": 1,
    "needs_bytes": 2,
    "socket": "/other/qwen3-8b/api.sock",
    "share": {"ram": 10240},
    "sleep": SLEEP,
    "ready_seconds": 601,
    "stop_seconds": 6,
    "exits_zero_on_crash": True,
    "flags": (),
    "keeps": {"ram": 0},
}


def test_fingerprint_ignores_measurements_of_a_start() -> None:
    def launch(utilisation: str, parser: str) -> Launch:
        flags = (
            Flag(("--util", utilisation), "--util", "free now", measured=True),
            Flag(("--parser", parser), "--parser", "its template"),
        )
        return replace(LAUNCH, flags=flags, argv=("vllm", "serve", "--util", utilisation, "--parser", parser))

    made = launch("0.8", "hermes")
    assert made.stable_argv == ("vllm", "serve", "--parser", "hermes")
    assert fingerprint(made, HOOKS) == fingerprint(launch("0.6", "hermes"), HOOKS)
    assert fingerprint(made, HOOKS) != fingerprint(launch("0.8", "mistral"), HOOKS)
    assert "0.8" in directive(engine_spec(made, HOOKS), "ExecStart")


def test_every_field_of_a_launch_is_tried() -> None:
    assert set(_CHANGES) | {"model_id"} == set(Launch.__dataclass_fields__)


@pytest.mark.parametrize("field", _CHANGES)
def test_fingerprint_changes_exactly_when_the_units_do(field: str) -> None:
    other = replace(LAUNCH, **{field: _CHANGES[field]})
    same_units = without_mark(LAUNCH) == without_mark(other)
    assert (fingerprint(LAUNCH, HOOKS) == fingerprint(other, HOOKS)) is same_units


_HOOK_CHANGES: dict[str, Any] = {
    "ready": ("/elsewhere",),
    "gate": ("/elsewhere",),
    "gate_seconds": 9,
    "wake": ("/elsewhere",),
    "release": ("/elsewhere",),
    "wait_released": ("/elsewhere",),
    "sleep_seconds": 7,
    "restart_seconds": 0.5,
    "test": "/elsewhere",
}


@pytest.mark.parametrize("launch", [LAUNCH, SLEEPER], ids=["stops", "sleeps"])
@pytest.mark.parametrize("field", _HOOK_CHANGES)
def test_fingerprint_changes_with_the_hooks_that_the_units_call(field: str, launch: Launch) -> None:
    assert set(_HOOK_CHANGES) == set(Hooks.__dataclass_fields__)
    hooks = replace(HOOKS, **{field: _HOOK_CHANGES[field]})
    same_units = without_mark(launch) == without_mark(launch, hooks)
    assert (fingerprint(launch, HOOKS) == fingerprint(launch, hooks)) is same_units


def without_mark(launch: Launch, hooks: Hooks = HOOKS) -> list[str]:
    engine, token = engine_spec(launch, hooks), token_spec(launch, hooks, ADMISSION)
    assert mark_of(engine) == f"{FINGERPRINT}={fingerprint(launch, hooks)}"
    return [spec.text().replace(mark_of(spec), "") for spec in (engine, token)]


def test_fingerprint_does_not_depend_on_sizes() -> None:
    """A running engine is not restarted because another model has left it more room."""
    larger = replace(SLEEPER, share={"GPU-8a3b1c2d": 20480}, keeps={"GPU-8a3b1c2d": 1300})
    assert fingerprint(larger, HOOKS) == fingerprint(replace(SLEEPER, keeps={"GPU-8a3b1c2d": 1280}), HOOKS)


def test_mark_of_a_token_tells_its_gate_arguments_apart() -> None:
    alone, after_b = (token_spec(LAUNCH, HOOKS, replace(ADMISSION, waits_for=frozenset(one))) for one in ((), ("b",)))
    assert mark_of(alone) != mark_of(after_b)


# --- names


@given(ids)
def test_unit_names_are_split_again(model_id: str) -> None:
    assert split(engine_unit(model_id)) == ("model", model_id)
    assert split(token_unit(model_id)) == ("resident", model_id)


@given(ids)
def test_object_paths_are_reversible(model_id: str) -> None:
    path = object_path(token_unit(model_id))
    assert unit_of(path) == token_unit(model_id)
    assert path.rpartition("/")[2].replace("_", "").isalnum(), "as D-Bus wants it"


def test_object_path_is_systemds() -> None:
    # As `busctl --user tree org.freedesktop.systemd1` prints it.
    expected = "/org/freedesktop/systemd1/unit/mmd_2dmodel_40qwen3_2d0_2e6b_2eservice"
    assert object_path("mmd-model@qwen3-0.6b.service") == expected


@pytest.mark.parametrize(
    "unit",
    [
        "mmd.service",
        "mmd.slice",
        "mmd-model@.service",
        "mmd-other@a.service",
        "mmd-model@a.socket",
        "x mmd-model@a.service",
    ],
)
def test_foreign_units_are_not_ours(unit: str) -> None:
    assert split(unit) is None


# --- how systemd reads it


def verify(folder: Path, *units: str) -> None:
    """Assert that systemd-analyze reports nothing about these units."""
    runtime = folder / "runtime"
    runtime.mkdir(mode=0o700)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--user", "--man=no", *(str(folder / unit) for unit in units)],
        env=os.environ | {"XDG_RUNTIME_DIR": str(runtime)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.tools
@pytest.mark.parametrize("sleep", [None, SLEEP], ids=["stops", "sleeps"])
def test_systemd_analyze_accepts_the_pair(tmp_path: Path, sleep: Sleep | None) -> None:
    launch = replace(LAUNCH, sleep=sleep, argv=("/bin/true", "a b", "100%", "$x", 'q"', "back\\slash", ";"))
    specs = engine_spec(launch, HOOKS), token_spec(launch, HOOKS, ADMISSION)
    for spec in specs:
        (tmp_path / spec.name).write_text(spec.text(), "utf-8")
    rival = token_spec(replace(launch, model_id="rival"), HOOKS, ADMISSION)
    (tmp_path / rival.name).write_text(rival.text(), "utf-8")
    (tmp_path / engine_unit("rival")).write_text(engine_spec(replace(launch, model_id="rival"), HOOKS).text(), "utf-8")
    (tmp_path / "mmd.slice").write_text(unit_text("mmd.slice", mmd_command()), "utf-8")
    verify(tmp_path, *(spec.name for spec in specs))


@pytest.mark.tools
def test_systemd_analyze_accepts_the_static_units(tmp_path: Path) -> None:
    for name in UNITS:
        (tmp_path / name).write_text(unit_text(name, mmd_command()), "utf-8")
        if drop_in := drop_in_text(name, ADDRESSES):
            (tmp_path / f"{name}.d").mkdir()
            (tmp_path / f"{name}.d" / "50-mmd.conf").write_text(drop_in, "utf-8")
    verify(tmp_path, *UNITS)


@pytest.mark.parametrize("folder", ["plain", "with space", "per%cent", 'quo"te', "back\\slash", "dol$lar"])
def test_static_units_start_the_python_that_runs_mmd(
    folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", f"/home/{folder}/bin/python")
    (start,) = parsed_raw(unit_text("mmd.service", mmd_command()), "ExecStart")
    assert unquoted(start)[0] == f"/home/{folder}/bin/python"


_DUMP = "import json, sys\nopen(sys.argv[1], 'a').write(json.dumps(sys.argv[2:]) + '\\n')\n"
_AWKWARD = ["a b", "", 'q"', "it's", "100%", "%h", "back\\slash", "\\n", "new\nline", "tab\t", "ü🦙", "#x", "-"]
_LOST_IN_A_RELOAD = ["$HOME", "${HOME}", "$$", "a$b", "cash$", "a;b", ";"]


def dumping(folder: Path, name: str, arguments: list[str]) -> UnitSpec:
    script = folder / "dump.py"
    script.write_text(_DUMP, "utf-8")
    argv = (sys.executable, "-I", "-S", str(script), str(folder / "seen"), *arguments)
    start = Command("ExecStart", directive(engine_spec(replace(LAUNCH, argv=argv), HOOKS), "ExecStart"))
    return UnitSpec(name, (Text("Type", "oneshot"), Switch("RemainAfterExit", True), start))


def seen(folder: Path) -> list[list[str]]:
    return [json.loads(line) for line in (folder / "seen").read_text("utf-8").splitlines()]


@pytest.mark.manager
async def test_systemd_passes_arguments_on_as_they_are(systemd: UserManager, tmp_path: Path) -> None:
    from mmd.units.bus import JobResult, Manager

    spec = dumping(tmp_path, "mmd-dump.service", _AWKWARD + _LOST_IN_A_RELOAD)
    async with await Manager.connect() as manager:
        assert await manager.run_job(spec.name, manager.start_transient(spec)) is JobResult.DONE
    assert seen(tmp_path) == [_AWKWARD + _LOST_IN_A_RELOAD]


@pytest.mark.manager
async def test_systemd_passes_arguments_on_after_a_reload(systemd: UserManager, tmp_path: Path) -> None:
    r"""It then reads the unit from the file that it has written itself.

    systemd 252 writes `$` and `;` as `\$\$` and `\;` there, and does not undo that: a model with one of them in its
    path does not start again. No D-Bus value avoids it: ExecStartEx with no-env-expand makes a file that systemd cannot
    read at all.
    """
    from mmd.units.bus import JobResult, Manager

    spec = dumping(tmp_path, "mmd-dump-reload.service", _AWKWARD)
    async with await Manager.connect() as manager:
        assert await manager.run_job(spec.name, manager.start_transient(spec)) is JobResult.DONE
        await manager.reload()
    systemd.systemctl("restart", spec.name)
    assert seen(tmp_path) == [_AWKWARD, _AWKWARD]


@pytest.mark.manager
def test_systemd_reads_the_text_as_it_reads_the_bus(systemd: UserManager, tmp_path: Path) -> None:
    spec = dumping(tmp_path, "mmd-dump-text.service", _AWKWARD + _LOST_IN_A_RELOAD)
    folder = systemd.runtime / "systemd/user"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / spec.name).write_text(spec.text(), "utf-8")
    systemd.systemctl("daemon-reload")
    systemd.systemctl("start", spec.name)
    assert seen(tmp_path) == [_AWKWARD + _LOST_IN_A_RELOAD]


def test_gateway_looks_for_engines_where_the_shell_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """The user manager's PATH has no ~/.local/bin, so the gateway ran another engine than the command line."""
    monkeypatch.setenv("PATH", "/home/ann/my tools/50%:/usr/bin")
    (line,) = parsed_raw(drop_in_text("mmd.service", ADDRESSES) or "", "Environment")
    assert unquoted(line) == ["PATH=/home/ann/my tools/50%:/usr/bin"]
