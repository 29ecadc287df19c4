"""Names of models: ids, aliases, repositories."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from mmd.control.models.aliases import candidate_aliases, id_for, names_of, repository_of
from mmd.errors import NoSuchModel, WrongUsage
from mmd.paths import config_file
from mmd.registry.record import Model
from mmd.registry.store import Registry
from mmd.settings import ModelTable, Settings
from tests.tiny_models import tiny_gguf
from tests.unit.cli.test_cli import mmd
from tests.unit.plan.planned import CHAT

CACHE = "/home/u/.cache/huggingface/hub/models--Qwen--Qwen3-8B-GGUF/snapshots/1234/Qwen3-8B-Q4_K_M.gguf"


def registered(**places: str) -> dict[str, Model]:
    """Return models by id, made from a source or a path."""
    return {
        name: replace(CHAT, id=name, source=place if place.startswith("hf:") else "file", path=place)
        for name, place in places.items()
    }


def configured(**aliases: list[str]) -> Settings:
    return Settings(models={model_id: ModelTable(aliases=tuple(names)) for model_id, names in aliases.items()})


def test_ids_and_aliases_mean_their_model() -> None:
    names = names_of(registered(a="/a.gguf", b="/b.gguf"), configured(a=["gpt-4o", "org/name"], gone=["x"]))
    assert names.ids == {"a": "a", "b": "b", "gpt-4o": "a", "org/name": "a"}
    assert names.aliases == {"a": ("gpt-4o", "org/name"), "b": ()}
    assert names.warnings() == ()


def test_repository_means_the_model_that_comes_from_it() -> None:
    names = names_of(registered(a="hf:Qwen/Qwen3-8B@abc", b=CACHE), configured())
    assert names.ids["Qwen/Qwen3-8B"] == "a"
    assert names.ids["Qwen/Qwen3-8B-GGUF"] == "b"
    assert names.aliases == {"a": ("Qwen/Qwen3-8B",), "b": ("Qwen/Qwen3-8B-GGUF",)}


def test_repository_of_several_models_names_them() -> None:
    names = names_of(registered(a="hf:o/r@1", b="hf:o/r@1", c="hf:o/r@2"), configured())
    assert "o/r" not in names.ids
    with pytest.raises(NoSuchModel, match="o/r is ambiguous, several models come from it: a, b, c"):
        names.require_clear("o/r")
    names.require_clear("something else")


def test_alias_resolves_an_ambiguous_repository() -> None:
    names = names_of(registered(a="hf:o/r@1", b="hf:o/r@1"), configured(b=["o/r"]))
    assert names.ids["o/r"] == "b"
    names.require_clear("o/r")


def test_id_wins_over_alias_with_a_warning() -> None:
    """A model added later may get an id that is already an alias; this must not stop anything."""
    names = names_of(registered(a="/a.gguf", b="/b.gguf"), configured(a=["b", "a"]))
    assert names.ids == {"a": "a", "b": "b"}
    (warning,) = names.warnings()
    assert "the alias b of a has no effect" in warning


@pytest.mark.parametrize(
    ("path", "repository"),
    [
        (CACHE, "Qwen/Qwen3-8B-GGUF"),
        ("/hub/models--gpt2/snapshots/1/model.gguf", "gpt2"),
        ("/hub/models--o--a--b/snapshots/1", "o/a--b"),
        ("/models/Qwen3-8B.gguf", None),
    ],
)
def test_repository_of_a_path(path: str, repository: str | None) -> None:
    assert repository_of(replace(CHAT, path=path)) == repository


def test_candidate_aliases_ignore_other_models() -> None:
    assert candidate_aliases(registered(a="hf:o/r@1")["a"], configured(a=["x"])) == ("x", "o/r")


def test_cli_takes_an_alias(tmp_path: Path) -> None:
    Registry().add(tiny_gguf(tmp_path / "a.gguf", name="a"), id="a")
    config_file().parent.mkdir(parents=True)
    config_file().write_text('[models.a]\naliases = ["org/name"]\n')
    assert (id_for("a"), id_for("org/name"), id_for("else")) == ("a", "a", "else")
    rows = json.loads(mmd("list", "--json").stdout)
    assert rows[0]["aliases"] == ["org/name"]
    heading, line = mmd("list").stdout.splitlines()
    assert (heading.split("  ")[-1], line.split()[-1]) == ("ALSO CALLED", "org/name")
    shown = mmd("show", "org/name")
    assert shown.stdout.startswith("a\n")
    assert "also called   org/name" in shown.stdout


def test_damaged_settings_affect_only_aliases(tmp_path: Path) -> None:
    Registry().add(tiny_gguf(tmp_path / "a.gguf", name="a"), id="a")
    config_file().parent.mkdir(parents=True)
    config_file().write_text("[models\n")
    assert id_for("a") == "a"
    with pytest.raises(WrongUsage, match="is not TOML"):
        id_for("org/name")


def test_damaged_registry_keeps_names_as_they_are() -> None:
    Registry().file.parent.mkdir(parents=True)
    Registry().file.write_text("[models\n")
    assert id_for("a") == "a"
