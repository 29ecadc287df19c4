"""The default model of each kind of listener."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmd.errors import NoSuchModel
from mmd.gateway.http.listener_kind import ListenerKind
from mmd.gateway.schedule.model_names import embedding_model
from mmd.plan.residency import Pair, UnitState
from mmd.registry.record import Model
from mmd.registry.store import Registry
from tests.gateway_peer import harness, post
from tests.tiny_models import tiny_embedding_gguf, tiny_gguf

_UP = Pair(UnitState("active", "running", loaded=True), UnitState("active", "exited", loaded=True))


@pytest.fixture
def models(tmp_path: Path) -> tuple[Model, ...]:
    for name in ("e2", "e1"):
        Registry().add(tiny_embedding_gguf(tmp_path / f"{name}.gguf"), id=name)
    Registry().add(tiny_gguf(tmp_path / "chat.gguf"), id="chat")
    return Registry().all()


def test_embedding_model_is_the_resident_one_else_the_first(models: tuple[Model, ...]) -> None:
    assert embedding_model(models, {}) == "e1"
    assert embedding_model(models, {"e2": _UP}) == "e2"
    assert embedding_model(models, {"chat": _UP}) == "e1"
    with pytest.raises(NoSuchModel, match="no embedding model is registered") as error:
        embedding_model([model for model in models if model.id == "chat"], {})
    assert error.value.hint.startswith("mmd add")


async def test_embedding_listener_defaults_to_the_embedding_model() -> None:
    async with harness("a", "b", active="b", listener_kind=ListenerKind.EMBEDDING) as running:
        running.models.embedding = "a"
        client = await running.client()
        assert (await client.ask(post({"input": "x"}, "/v1/embeddings"))).json()["peer"] == "a"
        assert (await client.ask(post({"input": "x", "model": "b"}, "/v1/embeddings"))).json()["peer"] == "b"
        assert running.models.log == ["activate a", "ready a", "activate b", "ready b"]
