"""`mmd default` and `mmd startup`: reading and editing mmd.toml."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import click
import pytest

from mmd.cli.startup import startup
from mmd.paths import config_file
from mmd.plan.boot import Startup
from mmd.registry.store import Registry
from mmd.settings import read_settings
from tests.tiny_models import sparse_gguf
from tests.unit.cli.test_cli import mmd, refused


@pytest.fixture(autouse=True)
def models(own_home: Path, tmp_path: Path, fake_llama_server: Path) -> None:
    for name in ("big", "qwen2.5-7b"):
        Registry().add(sparse_gguf(tmp_path / f"{name}.gguf"), id=name)


def said(done: subprocess.CompletedProcess[str]) -> str:
    """Return the messages of a verb that prints no data."""
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    return done.stderr


def test_no_default_is_talk_and_no_failure() -> None:
    assert "mmd default ID" in said(mmd("default"))


def test_default_is_set_and_printed() -> None:
    assert "big is loaded" in said(mmd("default", "big"))
    assert mmd("default").stdout == "big\n"
    assert mmd("startup", "big").stdout == "active\n"


def test_new_default_takes_the_place_of_the_old_one_and_says_so() -> None:
    mmd("default", "big")
    assert "mmd startup big sleep" in said(mmd("default", "qwen2.5-7b"))
    assert mmd("default").stdout == "qwen2.5-7b\n"
    assert mmd("startup", "big").stdout == "disabled\n"


def test_default_can_be_none() -> None:
    mmd("default", "big")
    assert "no default now" in said(mmd("default", "--none"))
    assert mmd("default").stdout == ""


def test_two_defaults_are_wrong_usage_and_the_hint_repairs_it() -> None:
    config_file().parent.mkdir(parents=True)
    config_file().write_text('[models.big]\nstartup = "active"\n[models."qwen2.5-7b"]\nstartup = "active"\n')
    what_is, what_to_do = refused(mmd("default"), 2)
    assert "big and qwen2.5-7b" in what_is
    said(mmd(*what_to_do.partition("#")[0].split()[1:]))
    assert mmd("default").stdout == "big\n"
    assert mmd("list").returncode == 0


def test_units_that_are_missing_are_told() -> None:
    assert "mmd install" in said(mmd("startup", "big", "active"))


def test_sleep_of_an_engine_that_cannot_is_told_when_it_is_set() -> None:
    """It was only logged, at the next boot."""
    talk = said(mmd("startup", "big", "sleep"))
    assert "cannot sleep" in talk
    assert "mmd default big" in talk
    assert mmd("startup", "big").stdout == "sleep\n"


def test_setting_sleep_reports_a_missing_model_file(tmp_path: Path) -> None:
    (tmp_path / "big.gguf").unlink()
    assert "its file is missing" in said(mmd("startup", "big", "sleep"))


@pytest.mark.parametrize("words", [("default", "bog"), ("startup", "bog"), ("startup", "bog", "sleep")], ids=" ".join)
def test_unknown_model(words: tuple[str, ...]) -> None:
    what_is, _ = refused(mmd(*words), 3)
    assert "'big'" in what_is
    assert not config_file().exists()


def test_model_that_is_no_longer_registered_can_be_taken_out() -> None:
    """Each boot reported it as skipped, and only an editor could end that."""
    mmd("startup", "big", "sleep")
    Registry().remove("big")
    assert "big is not loaded" in said(mmd("startup", "big", "disabled"))
    assert read_settings().model("big").startup == "disabled"
    refused(mmd("startup", "big", "sleep"), 3)


@pytest.mark.parametrize(
    "words", [("startup", "big", "asleep"), ("startup",), ("default", "big", "--none")], ids=" ".join
)
def test_wrong_words(words: tuple[str, ...]) -> None:
    refused(mmd(*words), 2)


def test_damaged_settings_are_left_alone() -> None:
    config_file().parent.mkdir(parents=True)
    config_file().write_text("[models\n")
    assert str(config_file()) in refused(mmd("default", "big"), 2)[0]
    assert config_file().read_text() == "[models\n"


def test_list_marks_the_default() -> None:
    mmd("default", "big")
    assert "default" in next(line for line in mmd("list").stdout.splitlines() if line.startswith("big"))


def test_list_as_json_has_the_mode_of_every_model() -> None:
    mmd("startup", "big", "active")
    rows = json.loads(mmd("list", "--json").stdout)
    assert [(row["id"], row["startup"]) for row in rows] == [("big", "active"), ("qwen2.5-7b", "disabled")]


def test_words_of_the_verb_are_those_of_the_settings() -> None:
    (mode,) = (parameter for parameter in startup.params if isinstance(parameter.type, click.Choice))
    assert list(mode.type.choices) == [*Startup]  # type: ignore[attr-defined]
