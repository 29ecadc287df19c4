"""`mmd setup`, and setups as arguments of other verbs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mmd.paths import config_file
from mmd.registry.store import Registry
from mmd.settings import read_settings
from tests.tiny_models import sparse_gguf
from tests.unit.cli.test_cli import mmd, refused
from tests.unit.cli.test_startup import said


@pytest.fixture(autouse=True)
def models(own_home: Path, tmp_path: Path, fake_llama_server: Path) -> None:
    for name in ("chat", "qwen2.5-7b"):
        Registry().add(sparse_gguf(tmp_path / f"{name}.gguf"), id=name)


def test_setup_is_added_listed_and_removed() -> None:
    assert "Define one: mmd setup add" in said(mmd("setup", "list"))
    assert "mmd activate rag" in said(mmd("setup", "add", "rag", "chat", "qwen2.5-7b", "--note", "search"))
    assert mmd("setup", "list").stdout.split("\n")[1].split() == ["rag", "chat,", "qwen2.5-7b", "absent", "search"]
    (record,) = json.loads(mmd("setup", "list", "--json").stdout)
    assert (record["id"], record["type"], record["models"]) == ("rag", "setup", ["chat", "qwen2.5-7b"])
    assert (record["note"], record["startup"], record["problem"]) == ("search", "disabled", "")
    assert "no longer" in said(mmd("setup", "remove", "rag"))
    assert read_settings().setups == {}


def test_setup_is_shown_with_its_models() -> None:
    mmd("setup", "add", "rag", "chat", "qwen2.5-7b", "--note", "search")
    shown = mmd("setup", "show", "rag").stdout
    assert "search" in shown
    rows = [line.split() for line in shown.splitlines()[-2:]]
    assert [(row[0], row[2]) for row in rows] == [("chat", "absent"), ("qwen2.5-7b", "absent")]
    assert "of RAM" in shown, "this machine has no GPU"
    record = json.loads(mmd("setup", "show", "rag", "--json").stdout)
    assert (record["id"], record["models"], record["plan"]["problem"]) == ("rag", ["chat", "qwen2.5-7b"], "")
    assert [list(one["devices"]) for one in record["plan"]["members"]] == [["ram"], ["ram"]]
    what_is, what_to_do = refused(mmd("setup", "show", "rga"), 3)
    assert ("'rag'" in what_is, what_to_do.startswith("mmd setup show rag")) == (True, True)


def test_setup_as_the_default() -> None:
    mmd("setup", "add", "rag", "chat", "qwen2.5-7b")
    mmd("default", "chat")
    assert "chat was the default" in said(mmd("default", "rag"))
    assert mmd("default").stdout == "rag\n"
    assert mmd("startup", "chat").stdout == "disabled\n"
    assert "the default" in mmd("setup", "list").stdout
    assert "rag was the default" in said(mmd("default", "chat"))
    assert read_settings().setups["rag"].startup == "disabled"


def test_last_resident_as_the_default() -> None:
    mmd("default", "chat")
    talk = said(mmd("default", "--last"))
    assert "chat was the default" in talk
    assert "what is resident now is unknown" in talk, "there is no user manager"
    assert mmd("default").stdout == "--last\n"
    assert read_settings().boot.restore_last
    assert "no longer loaded" in said(mmd("default", "chat"))
    assert mmd("default").stdout == "chat\n"
    assert not read_settings().boot.restore_last


@pytest.mark.parametrize(
    "words", [("default", "chat", "--last"), ("default", "--last", "--none"), ("setup", "add", "rag")], ids=" ".join
)
def test_words_that_exclude_each_other(words: tuple[str, ...]) -> None:
    refused(mmd(*words), 2)


def test_two_defaults_are_repaired_by_the_hint() -> None:
    config_file().parent.mkdir(parents=True)
    config_file().write_text('[setups.rag]\nmodels = ["chat"]\nstartup = "active"\n[boot]\nrestore_last = true\n')
    what_is, what_to_do = refused(mmd("default"), 2)
    assert "rag has" in what_is
    said(mmd(*what_to_do.partition("#")[0].split()[1:]))
    assert mmd("default").stdout == "rag\n"


@pytest.mark.parametrize("verb", ["show", "remove", "logs"])
def test_verb_for_one_model_refuses_a_setup(verb: str) -> None:
    mmd("setup", "add", "rag", "chat", "qwen2.5-7b")
    what_is, what_to_do = refused(mmd(verb, "rag"), 3)
    assert "rag is a setup, not a model; its models: chat, qwen2.5-7b" in what_is
    assert what_to_do == "mmd setup show rag"


def test_new_model_cannot_have_the_name_of_a_setup(tmp_path: Path) -> None:
    mmd("setup", "add", "rag", "chat", "qwen2.5-7b")
    path = sparse_gguf(tmp_path / "new.gguf")
    what_is, what_to_do = refused(mmd("add", str(path), "--id", "rag"), 2)
    assert what_is == "a setup is called rag, so no model can have this id"
    assert what_to_do.startswith("mmd setup list ")
    assert mmd("add", str(path)).returncode == 0


def test_completion_knows_models_and_setups() -> None:
    mmd("setup", "add", "chatter", "chat", "qwen2.5-7b")
    shown = mmd(_MMD_COMPLETE="bash_complete", COMP_WORDS="mmd activate ch", COMP_CWORD="2").stdout
    assert [line.split(",")[-1] for line in shown.splitlines()] == ["chat", "chatter"]
    shown = mmd(_MMD_COMPLETE="bash_complete", COMP_WORDS="mmd setup remove ", COMP_CWORD="3").stdout
    assert [line.split(",")[-1] for line in shown.splitlines()] == ["chatter"]
