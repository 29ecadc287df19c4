"""The names of a request: ids, aliases, and setups with one model that generates text."""

from __future__ import annotations

import pytest

from mmd.control.models.setups import Setup
from mmd.errors import NoSuchModel, WrongUsage
from mmd.gateway.schedule.model_names import ModelNames
from mmd.registry.store import Registry
from mmd.settings import ModelTable, Settings, SetupTable
from tests.unit.control.models.test_setups import MODELS

SETTINGS = Settings(
    models={"chat": ModelTable(aliases=("gpt-4o",))},
    setups={
        "rag": SetupTable(models=("chat", "embed")),
        "search": SetupTable(models=("embed", "rerank")),
        "both": SetupTable(models=("chat", "coder")),
        "old": SetupTable(models=("gone",)),
        "twice": SetupTable(models=("chat", "gpt-4o")),
        "embed": SetupTable(models=("chat",)),
    },
)


@pytest.fixture
def names(own_home: object, monkeypatch: pytest.MonkeyPatch) -> ModelNames:
    monkeypatch.setattr(Registry, "load", lambda self: MODELS)
    found = ModelNames(Registry(), SETTINGS)
    monkeypatch.setattr(found._settings_file, "current", lambda: SETTINGS)
    return found


@pytest.mark.parametrize(
    ("name", "model_id"),
    [("chat", "chat"), ("gpt-4o", "chat"), ("Qwen/Qwen3-8B", "chat"), ("rag", "chat"), ("embed", "embed")],
)
def test_name_of_a_request(names: ModelNames, name: str, model_id: str) -> None:
    assert names.find(name) == model_id


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("search", "none of which generates text; name one of its models: embed, rerank"),
        ("both", "several of which generate text; name one of its models: chat, coder"),
        ("old", "'gone'"),
        ("twice", "names chat twice"),
        ("nobody", "no model is called 'nobody'"),
    ],
)
def test_name_that_no_model_answers_for(names: ModelNames, name: str, message: str) -> None:
    with pytest.raises(NoSuchModel, match=message):
        names.find(name)


def test_setup_is_found_by_its_name(names: ModelNames) -> None:
    assert names.setup("search") == Setup("search", ("embed", "rerank"))
    assert names.setup("chat") is None
    with pytest.raises(WrongUsage, match="both a model and a setup"):
        names.setup("embed")
