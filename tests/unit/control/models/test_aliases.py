"""Which model a name means."""

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
    """Models by their ids, from where they come: a source, or a path."""
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
    with pytest.raises(NoSuchModel, match="o/r is where a and b and c come from"):
        names.require_clear("o/r")
    names.require_clear("something else")


def test_alias_settles_whose_a_repository_is() -> None:
    names = names_of(registered(a="hf:o/r@1", b="hf:o/r@1"), configured(b=["o/r"]))
    assert names.ids["o/r"] == "b"
    names.require_clear("o/r")


def test_id_goes_before_an_alias_and_both_are_named() -> None:
    """A model that is added later may get an id that is an alias already: nothing stops because of that."""
    names = names_of(registered(a="/a.gguf", b="/b.gguf"), configured(a=["b", "a"]))
    assert names.ids == {"a": "a", "b": "b"}
    (warning,) = names.warnings()
    assert "b as an alias of a" in warning


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


def test_other_names_of_one_model_are_no_matter_of_others() -> None:
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


def test_damaged_settings_matter_to_an_alias_only(tmp_path: Path) -> None:
    Registry().add(tiny_gguf(tmp_path / "a.gguf", name="a"), id="a")
    config_file().parent.mkdir(parents=True)
    config_file().write_text("[models\n")
    assert id_for("a") == "a"
    with pytest.raises(WrongUsage, match="is not TOML"):
        id_for("org/name")


def test_damaged_registry_stops_no_name() -> None:
    Registry().file.parent.mkdir(parents=True)
    Registry().file.write_text("[models\n")
    assert id_for("a") == "a"
