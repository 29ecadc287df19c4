"""Checks of model files, of installed engines, and of model tables in mmd.toml."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mmd.control.doctor.diagnosis import Level
from mmd.control.doctor.engines import check_engines, read_engines
from mmd.control.doctor.models import (
    ModelFiles,
    check_model_files,
    check_served,
    check_setups,
    check_tables,
    read_model_files,
)
from mmd.control.install.engines import EngineStatus
from mmd.engines.llama.engine import LLAMA_SERVER
from mmd.plan.boot import Startup
from mmd.registry import manifest
from mmd.registry.record import Format, Model
from mmd.registry.store import Registry
from mmd.settings import EnginesTable, ModelTable, Settings, SetupTable
from tests.tiny_models import sparse_gguf
from tests.unit.plan.planned import facts, model

WORKING = EngineStatus("llama-server", "1", "/bin/llama-server", "PATH", False, ("gguf",), 0, "", "")
ABSENT = EngineStatus("vllm", None, None, "", False, (), 0, "", "mmd engine install vllm")


@pytest.fixture
def added(tmp_path: Path) -> Model:
    known = Registry().add(sparse_gguf(tmp_path / "a.gguf", 4096), id="a")
    manifest.write(known, {})
    return known


def found(known: Model) -> tuple[Level, str, str]:
    (diagnosis,) = check_model_files(read_model_files([known]))
    return diagnosis.state, diagnosis.message, diagnosis.hint


def test_unchanged_files(added: Model) -> None:
    assert found(added) == (Level.OK, "1 registered, all files present", "")


def test_missing_file(added: Model) -> None:
    Path(added.path).unlink()
    state, message, hint = found(added)
    assert (state, message) == (Level.FAILED, f"a: missing: {added.path}")
    assert hint.startswith("mmd remove a")


def test_missing_hub_file_can_be_pulled_again(tmp_path: Path) -> None:
    commit = "0" * 40
    snapshot = tmp_path / f"hub/models--org--name-GGUF/snapshots/{commit}"
    snapshot.mkdir(parents=True)
    blob = tmp_path / "hub/models--org--name-GGUF/blobs" / ("1" * 64)
    blob.parent.mkdir()
    sparse_gguf(blob)
    file = snapshot / "name-Q4_K_M.gguf"
    file.symlink_to(os.path.relpath(blob, snapshot))
    known = Registry().add(file, id="a", source=f"hf:org/name-GGUF@{commit}")
    blob.unlink()
    state, _, hint = found(known)
    assert state is Level.FAILED
    assert hint.startswith("mmd pull org/name-GGUF")


def test_changed_size(added: Model) -> None:
    with Path(added.path).open("ab") as file:
        file.write(b"more")
    state, message, hint = found(added)
    assert (state, message) == (Level.FAILED, f"a: size changed since registration: {added.path}")
    assert hint.startswith("mmd verify a")


def test_truncated_file_without_record(added: Model) -> None:
    manifest.forget("a")
    os.truncate(added.path, 100)
    assert found(added)[:2] == (Level.FAILED, "a: its files are shorter than their headers claim")


def test_damaged_record_is_left_in_place(added: Model) -> None:
    manifest.file_for("a").write_text("{")
    assert found(added)[0] is Level.WARNING
    assert manifest.file_for("a").read_text() == "{"


def test_unreadable_file() -> None:
    (diagnosis,) = check_model_files([ModelFiles("a", unreadable=("/srv/a.gguf",))])
    assert (diagnosis.state, diagnosis.hint) == (Level.FAILED, "namei -l /srv/a.gguf   # shows the owners")


def test_each_broken_model_is_named() -> None:
    wrong = [ModelFiles("a", missing=("/a", "/b", "/c")), ModelFiles("b"), ModelFiles("c", changed=("/d",))]
    first, second = check_model_files(wrong)
    assert first.message == "a: missing: /a and 2 more"
    assert second.message.startswith("c: ")


def test_no_model_is_ok() -> None:
    (diagnosis,) = check_model_files([])
    assert (diagnosis.state, diagnosis.message) == (Level.OK, "no model is registered")


def settings(**models: ModelTable) -> Settings:
    return Settings(models=models)


SAFETENSORS = [model(facts(format=Format.SAFETENSORS), id=f"m{number}") for number in range(5)]


def test_format_without_installed_engine() -> None:
    (diagnosis,) = check_served([model(id="a"), *SAFETENSORS], [WORKING, ABSENT], settings())
    assert diagnosis.state is Level.FAILED
    assert diagnosis.message == "no installed engine serves m0, m1, m2 and 2 more: safetensors needs vllm"
    assert diagnosis.hint == "mmd engine install vllm"


def test_engine_in_mmd_toml_that_is_missing() -> None:
    (diagnosis,) = check_served([model(id="a")], [WORKING, ABSENT], settings(a=ModelTable(engine="embedded")))
    assert (diagnosis.state, diagnosis.message) == (
        Level.FAILED,
        "a: mmd.toml names the engine embedded, which is not installed",
    )


def test_no_engine_is_reported_once() -> None:
    assert list(check_served(SAFETENSORS, [ABSENT], settings())) == []
    (diagnosis,) = check_engines([ABSENT])
    assert diagnosis.state is Level.FAILED
    assert diagnosis.hint.startswith("mmd engine install")


def test_tables_of_unregistered_models() -> None:
    tables = settings(a=ModelTable(), gone=ModelTable(context=4096), away=ModelTable(startup="active"))
    first, second = check_tables(tables, ["a"], {"away": Startup.ACTIVE})
    assert (first.state, first.message) == (Level.FAILED, "away has a startup mode, but is not registered")
    assert first.hint.startswith("mmd startup away disabled")
    assert (second.state, "gone" in second.message) == (Level.WARNING, True)


def test_setups_that_cannot_be_activated() -> None:
    models = {"a": model(facts(), id="a")}
    tables = Settings(
        setups={
            "good": SetupTable(models=("a",)),
            "old": SetupTable(models=("a", "gone")),
            "a": SetupTable(models=("a",), startup="active"),
        }
    )
    first, second = check_setups(tables, models)
    assert (first.state, "'gone'" in first.message) == (Level.WARNING, True)
    assert (second.state, second.message) == (Level.FAILED, "a is both a model and a setup in mmd.toml")


# -- engines


def script(path: Path, text: str) -> Path:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def only(name: str, place: Path | None) -> Settings:
    return Settings(engines=EnginesTable(**{name.replace("-", "_"): str(place) if place else None}))


def test_engines_are_read_and_a_missing_setting_is_reported(fake_llama_server: Path) -> None:
    engines = read_engines(only("vllm", Path("/nowhere/vllm")), limit_seconds=20)
    told = {diagnosis.message: diagnosis.state for diagnosis in check_engines(engines)}
    assert any(message.startswith("llama-server 9611") and f"{fake_llama_server} (PATH)" in message for message in told)
    (broken,) = (message for message, state in told.items() if state is Level.FAILED)
    assert broken.startswith("vllm is configured as /nowhere/vllm")


def test_hung_engine_does_not_delay_others(tmp_path: Path, fake_llama_server: Path) -> None:
    """The program reads from a pipe that the test keeps open, so it ends with the test."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    hung = script(tmp_path / "hung", f"exec cat {pipe}")
    held = os.open(pipe, os.O_RDWR)
    engines = read_engines(only("llama-server", hung), limit_seconds=0.3)
    pipe.unlink()  # a program that starts only now does not wait either
    os.close(held)
    (diagnosis,) = (diagnosis for diagnosis in check_engines(engines) if diagnosis.state is Level.FAILED)
    assert diagnosis.message == "llama-server did not answer within 0.3 s"
    assert diagnosis.hint == f"{hung} --version"


@pytest.mark.parametrize(
    ("origin", "others", "state"),
    [
        ("mmd.toml", (WORKING,), Level.FAILED),
        ("PATH", (WORKING,), Level.WARNING),
        ("PATH", (), Level.FAILED),
    ],
)
def test_broken_engine_matters_if_set_or_the_only_one(
    origin: str, others: tuple[EngineStatus, ...], state: Level
) -> None:
    broken = EngineStatus("vllm", None, "/opt/vllm", origin, False, (), 0, "it does not start", "vllm --version")
    assert next(iter(check_engines([broken, *others]))).state is state


@pytest.mark.parametrize(
    ("said", "devices"),
    [
        ("echo 'Available devices:'; echo '  CUDA0: NVIDIA RTX 4070 (12281 MiB, 11914 MiB free)'", ("CUDA0",)),
        ("echo 'Available devices:'; echo '  (none)'", ()),
        ("echo 'error: invalid argument: --list-devices'; exit 1", None),
        ("echo 'something else'", None),
    ],
)
def test_devices_of_llama_server(said: str, devices: tuple[str, ...] | None, tmp_path: Path) -> None:
    program = script(tmp_path / "llama-server", said)
    build = LLAMA_SERVER.read_build(program, has_gpu=True)
    assert (build and build.devices) == devices
    assert LLAMA_SERVER.read_build(program, has_gpu=False) is None
