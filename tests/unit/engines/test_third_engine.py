"""An engine is one folder and one line in the table: with these alone, mmd finds it, plans with it and shows it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from mmd import engines
from mmd.cli.list_show import launch_record
from mmd.control.install.engines import engine_statuses, install_names
from mmd.control.lifecycle.planner import plan_launch
from mmd.control.memory.engine_plan import served
from mmd.control.memory.estimate import Estimator
from mmd.control.state.model_info import model_info
from mmd.control.state.refused_flags import RefusedFlags
from mmd.engines.install import installable
from mmd.errors import DoesNotFit, EngineMissing, WrongUsage
from mmd.plan.estimate import Components
from mmd.plan.last_words import Refusal, cause_line, refused
from mmd.plan.launch import Launch
from mmd.plan.measurement import LoadLog, Observation
from mmd.registry.record import Format, Model
from mmd.registry.store import Registry
from mmd.settings import read_settings
from tests.tiny_models import tiny_gguf
from tests.unit.engines.third_engine.engine import THIRD
from tests.unit.engines.third_engine.program import install_third_server
from tests.unit.plan.planned import machine

HERE = machine("cpu-only")


@pytest.fixture(autouse=True)
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The table with one more line, and the program on PATH."""
    monkeypatch.setattr(engines, "ENGINES", (THIRD, *engines.ENGINES))
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    return install_third_server(tmp_path)


@pytest.fixture
def model(tmp_path: Path) -> Model:
    path = tmp_path / "a.gguf"
    tiny_gguf(path, name="a")
    return Registry().add(path, id="a")


def launch_of(model: Model) -> Launch:
    return plan_launch(model, HERE, read_settings())


def test_third_engine_is_found(program: Path) -> None:
    assert engines.installed({})[0].command == (str(program),)
    assert engines.engine("third") is THIRD
    program.unlink()
    assert THIRD not in [found.engine for found in engines.installed({})]


def test_third_engine_is_chosen_for_its_format_and_planned(model: Model, program: Path) -> None:
    launch = launch_of(model)
    assert (launch.engine, launch.title, launch.stop_seconds, launch.ready_seconds) == ("third", "third 7", 3, 60)
    assert launch.argv == (*(str(program), "-m", model.path, "--host", launch.socket, "--alias", "a", "--metrics"),)
    assert all(flag.reason for flag in launch.flags)
    assert dict(launch.environment)["THIRD_CACHE"].endswith("/third")
    with pytest.raises(DoesNotFit, match="a needs at least"):
        plan_launch(model, replace(HERE, ram_total_bytes=1000), read_settings())


def test_third_engine_gives_way_to_the_one_in_settings(model: Model) -> None:
    from mmd.paths import config_file

    config_file().parent.mkdir(parents=True, exist_ok=True)
    config_file().write_text('[models.a]\nengine = "vllm"\n')
    with pytest.raises(EngineMissing, match=r"mmd\.toml selects vllm"):
        launch_of(model)
    config_file().write_text('[models.a]\nengine = "third"\n')
    assert launch_of(model).engine == "third"


def test_third_engine_is_shown(model: Model, program: Path) -> None:
    status = engine_statuses(read_settings())[0]
    assert (status.name, status.version, status.place, status.origin) == ("third", "7", str(program), "PATH")
    assert (status.formats, status.models) == (("gguf",), 1)
    assert model_info(model).engine == "third.cpp"
    assert launch_record(launch_of(model))["flags"][-1] == {
        "words": (), "subject": "--turbo", "reason": "left to the engine: on",
    }  # fmt: skip


def test_third_engine_is_estimated_by_its_formulas(model: Model) -> None:
    answer = Estimator(HERE, read_settings()).answer(model, 4096)
    assert answer.engine == "third 7"
    assert (
        answer.estimate.needs_bytes
        == THIRD.memory(model.facts, HERE, (), projector_bytes=0, on_gpu=False, constants=THIRD.constants)
        .components(4096)
        .total_bytes
    )
    assert served(model, HERE, read_settings()).command == ("-m", model.path, "--metrics")


def test_log_of_the_third_engine_is_read() -> None:
    log = THIRD.read_load_log(["third INFO: loaded 123 bytes of weights"])
    assert log == LoadLog(weights_bytes=123)
    predicted = Components(100, 0, 0, 0, 0, 0)
    assert THIRD.measure(Observation(0, None, log, None, predicted)) == {"weights_bytes": 123}


def test_flag_that_the_third_engine_refuses_is_left_out(model: Model) -> None:
    launch = launch_of(model)
    lines = ["third INFO: error: loading", "third ERROR: error: invalid argument: --metrics", "bye"]
    refusal = refused(lines, launch.flags, THIRD.log_style)
    assert refusal == Refusal(("--metrics",), "error: invalid argument: --metrics")
    assert cause_line(lines, THIRD.log_style) == refusal.output
    RefusedFlags().remember(launch.model_id, launch.title, refusal.subjects, refusal.output)
    assert "--metrics" not in launch_of(model).argv


def test_third_engine_that_mmd_does_not_install() -> None:
    assert "third" not in install_names()
    with pytest.raises(WrongUsage, match="mmd does not install an engine 'third'"):
        installable("third")
    with pytest.raises(EngineMissing, match="mmd does not install third"):
        THIRD.recipe(has_gpu=False, for_cpu=False)


def test_missing_third_engine_names_its_format() -> None:
    assert engines.missing(Format.GGUF).message == "no engine for gguf files is installed"
