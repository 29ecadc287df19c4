"""Setups in mmd.toml, with the ids of their models."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mmd.control.models.aliases import id_for
from mmd.control.models.setup_info import setup_infos
from mmd.control.models.setups import (
    Setup,
    answering_model,
    define,
    forget,
    require_setup,
    select,
    setup_named,
)
from mmd.errors import MmdError, NoSuchModel, RegistryDamaged, WrongUsage
from mmd.paths import config_file
from mmd.plan.boot import Startup
from mmd.plan.residency import Pair
from mmd.registry.record import Model, ModelType
from mmd.registry.store import Registry
from mmd.settings import ModelTable, Settings, SetupTable, read_settings
from tests.unit.plan.planned import CHAT
from tests.unit.plan.test_boot import ASLEEP, FAILED, RESIDENT, STARTING

RAG = SetupTable(models=("chat", "embed"), note="search", expose=("chat",), startup="active")


def model(name: str, kind: ModelType = ModelType.CHAT, source: str = "") -> Model:
    return replace(CHAT, id=name, path=f"/models/{name}.gguf", source=source, facts=replace(CHAT.facts, type=kind))


MODELS = {
    one.id: one
    for one in (
        model("chat", source="hf:Qwen/Qwen3-8B@main"),
        model("coder", ModelType.COMPLETION),
        model("embed", ModelType.EMBEDDING),
        model("rerank", ModelType.RERANKER),
    )
}


@pytest.fixture
def registry(own_home: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Registry, "load", lambda self: MODELS)
    config_file().parent.mkdir(parents=True)


def named(table: SetupTable, name: str = "rag", **models: ModelTable) -> Setup | None:
    return setup_named(name, MODELS, Settings(models=models, setups={"rag": table}))


def test_setup_has_the_ids_of_its_models() -> None:
    assert named(RAG) == Setup("rag", ("chat", "embed"), "search", ("chat",), Startup.ACTIVE)
    assert named(RAG, name="other") is None


def test_models_can_be_given_by_their_other_names() -> None:
    table = SetupTable(models=("Qwen/Qwen3-8B", "e5"), expose=("e5",))
    setup = named(table, embed=ModelTable(aliases=("e5",)))
    assert setup is not None
    assert (setup.models, setup.expose) == (("chat", "embed"), ("embed",))


def test_two_names_of_one_model_are_refused() -> None:
    with pytest.raises(WrongUsage, match="the setup rag names chat twice: chat, Qwen/Qwen3-8B"):
        named(SetupTable(models=("chat", "Qwen/Qwen3-8B")))


def test_model_that_is_not_registered_is_named_with_the_nearest() -> None:
    with pytest.raises(NoSuchModel, match=r"rag names a model that is not registered.*'embd'.*'embed'") as refusal:
        named(SetupTable(models=("chat", "embd")))
    assert refusal.value.hint.startswith("mmd setup add rag ")


def test_setup_named_like_a_model_is_refused() -> None:
    with pytest.raises(WrongUsage, match="chat is both a model and a setup"):
        setup_named("chat", MODELS, Settings(setups={"chat": RAG}))


def test_list_shows_a_broken_setup_and_its_problem() -> None:
    settings = Settings(setups={"rag": RAG, "old": SetupTable(models=("gone",))})
    good, bad = setup_infos(MODELS, settings, {})
    assert (good.id, good.type, good.models, good.problem) == ("rag", "setup", ("chat", "embed"), "")
    assert good.vram_bytes == 2 * CHAT.facts.weights_bytes
    assert (bad.id, bad.models, bad.status) == ("old", ("gone",), "absent")
    assert "'gone'" in bad.problem


@pytest.mark.parametrize(
    ("chat", "embed", "status"),
    [
        (RESIDENT, RESIDENT, "resident"),
        (RESIDENT, ASLEEP, "sleeping"),
        (RESIDENT, None, "absent"),
        (ASLEEP, STARTING, "starting"),
        (FAILED, RESIDENT, "failed"),
    ],
)
def test_status_of_a_setup_is_that_of_its_last_model(chat: Pair, embed: Pair | None, status: str) -> None:
    pairs = {"chat": chat} | ({"embed": embed} if embed else {})
    assert [one.status for one in setup_infos(MODELS, Settings(setups={"rag": RAG}), pairs)] == [status]


@pytest.mark.parametrize(
    ("models", "answers"),
    [(("chat", "embed"), "chat"), (("embed", "rerank", "coder"), "coder")],
)
def test_request_for_a_setup_goes_to_its_only_generating_model(models: tuple[str, ...], answers: str) -> None:
    assert answering_model(Setup("rag", models), MODELS) == answers


@pytest.mark.parametrize(
    ("models", "why"),
    [(("chat", "coder"), "several of which generate text"), (("embed", "rerank"), "none of which generates text")],
)
def test_request_for_a_setup_that_cannot_answer_names_its_models(models: tuple[str, ...], why: str) -> None:
    with pytest.raises(NoSuchModel, match=f"rag is a setup, {why}; name one of its models: {', '.join(models)}"):
        answering_model(Setup("rag", models), MODELS)


# --- what a command is for


@pytest.mark.usefixtures("registry")
def test_selection_of_a_setup_and_of_a_model() -> None:
    define("rag", ("chat", "embed"), None)
    assert (select("rag").name, select("rag").models) == ("rag", ("chat", "embed"))
    assert select("rag").setup == require_setup("rag")
    assert (select("Qwen/Qwen3-8B").models, select("Qwen/Qwen3-8B").setup) == (("chat",), None)
    assert select("nobody").models == ("nobody",), "the command reports it"


@pytest.mark.usefixtures("registry")
def test_damaged_settings_prevent_no_selection_by_id() -> None:
    config_file().write_text("[models\n")
    assert select("chat").models == ("chat",)
    with pytest.raises(WrongUsage, match="is not TOML"):
        select("rag")


def test_damaged_registry_prevents_no_selection_by_id(monkeypatch: pytest.MonkeyPatch) -> None:
    def damaged(self: Registry) -> None:
        raise RegistryDamaged("models.json is damaged", hint="mmd doctor")

    monkeypatch.setattr(Registry, "load", damaged)
    assert select("chat").models == ("chat",)


@pytest.mark.usefixtures("registry")
def test_command_for_a_model_refuses_a_setup() -> None:
    define("rag", ("chat", "embed"), None)
    with pytest.raises(NoSuchModel, match="rag is a setup, not a model; its models: chat, embed"):
        id_for("rag")


@pytest.mark.usefixtures("registry")
def test_unknown_setup_is_answered_with_the_nearest() -> None:
    assert "mmd setup add rga" in _refused("rga").hint
    define("rag", ("chat",), None)
    assert "'rag'" in _refused("rga").message
    assert _refused("other").hint.startswith("mmd setup list")


def _refused(name: str) -> MmdError:
    with pytest.raises(NoSuchModel) as refusal:
        require_setup(name)
    return refusal.value


# --- changes


@pytest.mark.usefixtures("registry")
def test_defined_again_a_setup_keeps_what_is_not_given() -> None:
    config_file().write_text(
        '[setups.rag]\nmodels = ["chat", "embed"]\nnote = "n"\nexpose = ["chat", "embed"] # open\n'
    )
    assert not define("rag", ("embed", "rerank"), None)
    assert read_settings().setups == {"rag": SetupTable(("embed", "rerank"), note="n", expose=("embed",))}
    assert not define("rag", ("embed",), "new")
    assert read_settings().setups["rag"].note == "new"
    assert "# open" in config_file().read_text()


@pytest.mark.usefixtures("registry")
@pytest.mark.parametrize(
    ("name", "models", "message"),
    [
        ("Rag", ("chat",), "is not a setup's name"),
        ("chat", ("embed",), "chat is a model, so no setup"),
        ("Qwen/Qwen3-8B", ("embed",), "is not a setup's name"),
        ("gpt", ("embed",), "gpt is another name of chat"),
        ("rag", ("chat", "chat"), "names chat twice"),
        ("rag", ("nobody",), "not registered"),
    ],
)
def test_setup_that_cannot_be_defined(name: str, models: tuple[str, ...], message: str) -> None:
    config_file().write_text('[models.chat]\naliases = ["gpt"]\n')
    with pytest.raises((WrongUsage, NoSuchModel), match=message):
        define(name, models, None)
    assert config_file().read_text() == '[models.chat]\naliases = ["gpt"]\n'


@pytest.mark.usefixtures("registry")
def test_removed_setup_is_gone() -> None:
    define("rag", ("chat",), None)
    forget("rag")
    assert read_settings().setups == {}
    with pytest.raises(NoSuchModel):
        forget("rag")
