"""Searches on a hub on this machine."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from mmd.errors import HubUnavailable, RepositoryGated
from mmd.registry.hub.search import Found, Query, search
from mmd.registry.record import Format, ModelType
from tests.fakes.hub import FakeHub, FakeRepository, OnDisk, Refusal

_GIB = 1024**3
_GGUF = (Format.GGUF,)


@pytest.fixture
def huge(tmp_path: Path) -> OnDisk:
    """A file of 5 GiB that takes no space."""
    path = tmp_path / "huge"
    with path.open("wb") as file:
        file.truncate(5 * _GIB)
    return OnDisk(path, "a" * 64)


def repository(*files: str, billions: float = 8, **said: object) -> FakeRepository:
    one = FakeRepository(
        dict.fromkeys(files or ("model-Q4_K_M.gguf",), b"x" * 5000),
        gguf={"total": int(billions * 1e9), "architecture": "llama", "context_length": 4096, "chat_template": "{}"},
        pipeline_tag="text-generation",
    )
    return replace(one, **said)  # type: ignore[arg-type]


def safetensors(**said: object) -> FakeRepository:
    one = FakeRepository(
        {"config.json": b"{}", "model.safetensors": b"x" * 5000},
        tags=("safetensors", "conversational", "transformers"),
        safetensors={"parameters": {"BF16": 8_000_000_000}, "total": 8_000_000_000},
        pipeline_tag="text-generation",
        library_name="transformers",
    )
    return replace(one, **said)  # type: ignore[arg-type]


def ids(found: Found) -> list[str]:
    return [result.id for result in found.results]


def test_each_result_tells_its_models_and_their_sizes(hub: FakeHub, huge: OnDisk) -> None:
    hub.repositories["me/llama-GGUF"] = repository(
        files={"llama-Q4_K_M.gguf": huge, "llama-Q8_0.gguf": huge, "mmproj-f16.gguf": b"y" * 5000},
        card={"license": "llama3.1"},
        gated=True,
        base_models=("meta/llama",),
    )
    (found,) = search(Query("llama", 10)).results
    assert {offer.file: offer.weights_bytes for offer in found.offers} == {
        "llama-Q4_K_M.gguf": 5 * _GIB,
        "llama-Q8_0.gguf": 5 * _GIB,
    }
    assert all(offer.projector_bytes == 5000 for offer in found.offers)
    assert (found.base.parameters, found.base.context_length, found.base.type) == (8_000_000_000, 4096, ModelType.CHAT)
    assert (found.licence, found.gated, found.downloads, found.formats) == ("llama3.1", True, 10, ("gguf",))


def test_best_match_comes_first_and_the_list_is_cut_after_it(hub: FakeHub) -> None:
    """By downloads only, the limit would have kept the coder."""
    hub.repositories = {
        "a/Qwen2.5-Coder-7B-GGUF": repository(downloads=50_000),
        "a/Qwen2.5-7B-GGUF": repository(downloads=20_000),
    }
    assert ids(search(Query("qwen 7b", 1, _GGUF))) == ["a/Qwen2.5-7B-GGUF"]


def test_what_nothing_here_serves_is_counted(hub: FakeHub) -> None:
    hub.repositories = {
        "me/model-GGUF": repository(),
        "me/model": safetensors(),
        "me/model-mlx": safetensors(tags=("safetensors", "mlx"), library_name="mlx"),
        "me/model-4bit-mlx": safetensors(tags=("safetensors", "mlx"), library_name="mlx"),
        "me/model-lora": safetensors(tags=("safetensors", "lora"), library_name="peft"),
        "me/model-onnx": FakeRepository({"model.onnx": b""}, tags=("onnx",)),
        "me/model-exl2": safetensors(tags=("safetensors", "exl2")),
        "me/model-image": FakeRepository({"model_index.json": b""}, tags=("diffusers",), library_name="diffusers"),
        "me/model-pickle": FakeRepository({"pytorch_model.bin": b""}, tags=("pytorch",)),
    }
    found = search(Query("model", 10, _GGUF))
    assert ids(found) == ["me/model-GGUF"]
    assert found.unsupported == {
        "MLX": 2,
        "adapter": 1,
        "ONNX": 1,
        "ExLlama": 1,
        "diffusion": 1,
        "neither GGUF nor safetensors": 1,
        "safetensors without vLLM": 1,
    }
    found = search(Query("model", 10))
    assert set(ids(found)) == {"me/model-GGUF", "me/model"}
    assert "safetensors without vLLM" not in found.unsupported


@pytest.mark.parametrize(
    ("asked", "wanted"),
    [
        (Query("model", 10, licence="open"), {"free", "small"}),
        (Query("model", 10, licence="llama3.1"), {"llama"}),
        (Query("model", 10, gated=True), {"llama"}),
        (Query("model", 10, gated=False), {"free", "small", "unsaid", "sees", "reads", "ranks"}),
        (Query("model", 10, type=ModelType.VISION), {"sees"}),
        (Query("model", 10, type=ModelType.EMBEDDING), {"reads"}),
        (Query("model", 10, type=ModelType.RERANKER), {"ranks"}),
        (Query("model", 10, type=ModelType.CHAT), {"free", "small", "llama", "unsaid", "sees"}),
        (Query("model", 10, min_parameters=6_800_000_000, max_parameters=8_100_000_000), {"free", "unsaid"}),
        (Query("model", 10, max_parameters=600_000_000), {"small"}),
        (Query("model", 10, min_parameters=60_000_000_000), {"llama"}),
    ],
    ids=str,
)
def test_filters(hub: FakeHub, asked: Query, wanted: set[str]) -> None:
    hub.repositories = {
        "me/model-free": repository(card={"license": "apache-2.0"}),
        "me/model-small": repository(billions=0.5, card={"license": "mit"}),
        "me/model-llama": repository(billions=70, card={"license": "llama3.1"}, gated=True),
        "me/model-unsaid": repository(),
        "me/model-sees": repository(billions=12, pipeline_tag="image-text-to-text"),
        "me/model-reads": repository(billions=2, pipeline_tag="feature-extraction"),
        "me/model-ranks": repository(billions=3, pipeline_tag="text-ranking"),
    }
    assert {id.removeprefix("me/model-") for id in ids(search(asked))} == wanted


def test_quantisations_of_a_model(hub: FakeHub) -> None:
    hub.repositories = {
        "a/one-GGUF": repository(base_models=("maker/model",)),
        "b/other-GGUF": repository(base_models=("maker/other",)),
        "c/tuned": repository(base_models=("maker/model",), relation="finetune"),
    }
    assert ids(search(Query("", 5, _GGUF, base="maker/model"))) == ["a/one-GGUF"]


def test_a_repository_that_has_gone_since_it_was_listed(hub: FakeHub) -> None:
    hub.repositories = {"me/model-a": repository(), "me/model-b": repository()}
    gone = Refusal(404, headers={"X-Error-Code": "RepoNotFound"}, on="/api/models/me/model-a")
    hub.faults = [gone]
    assert ids(search(Query("model", 10))) == ["me/model-b"]


def test_one_without_a_model_is_left_out(hub: FakeHub) -> None:
    hub.repositories = {"me/model-a": repository("README.md"), "me/model-b": repository()}
    assert ids(search(Query("model", 10))) == ["me/model-b"]


def test_name_outside_the_folder_is_not_a_model(hub: FakeHub) -> None:
    hub.repositories = {"me/model": repository("../../evil.gguf", "/etc/evil.gguf", "good-Q8_0.gguf")}
    (found,) = search(Query("model", 10)).results
    assert [offer.file for offer in found.offers] == ["good-Q8_0.gguf"]


def test_nothing_found(hub: FakeHub) -> None:
    assert search(Query("nothing", 10)) == Found((), {})


@pytest.mark.parametrize(("status", "kind"), [(429, HubUnavailable), (500, HubUnavailable), (401, RepositoryGated)])
@pytest.mark.parametrize("on", ["/api/models?", "/api/models/me/model"])
def test_a_hub_that_refuses(hub: FakeHub, status: int, kind: type[Exception], on: str) -> None:
    hub.repositories = {"me/model": repository()}
    hub.faults = [Refusal(status, "Invalid credentials in Authorization header", on=on)]
    with pytest.raises(kind):
        search(Query("model", 10))


def test_few_requests(hub: FakeHub) -> None:
    """One list per format and one of all, and one request per shown repository."""
    hub.repositories = {f"me/model-{number}": repository() for number in range(30)}
    assert len(search(Query("model", 5)).results) == 5
    assert len(hub.asked) == 3 + 5
