"""What a record of the hub says of a model. Records are cut down to the keys that matter; names are of real ones where
a rule was made for them.
"""

from __future__ import annotations

from typing import Any

import pytest

from mmd.registry.hub.files import HubFile
from mmd.registry.hub.listing import base_of, offers_in, unsupported_format
from mmd.registry.offer import HubModel
from mmd.registry.record import Format, ModelType


def info(id: str, *tags: str, task: str | None = None, library: str | None = None, **said: Any) -> dict[str, Any]:
    return {"id": id, "tags": list(tags), "pipeline_tag": task, "library_name": library, **said}


def gguf(architecture: str, template: str = "{}") -> dict[str, Any]:
    return {"total": 8_000_000_000, "architecture": architecture, "context_length": 40_960, "chat_template": template}


def quantised(method: str) -> dict[str, Any]:
    return {"quantization_config": {"quant_method": method}}


@pytest.mark.parametrize(
    ("record", "kind"),
    [
        # Names say nothing, or are wrong.
        (info("BAAI/bge-m3", "safetensors", task="sentence-similarity"), ModelType.EMBEDDING),
        (info("intfloat/e5-mistral-7b-instruct", "safetensors", task="feature-extraction"), ModelType.EMBEDDING),
        (
            info("Alibaba-NLP/gte-Qwen2-7B-instruct", "sentence-transformers", task="sentence-similarity"),
            ModelType.EMBEDDING,
        ),
        (info("me/e5-GGUF", "gguf", "sentence-transformers"), ModelType.EMBEDDING),
        (info("me/nomic-GGUF", "gguf", gguf=gguf("nomic-bert", "")), ModelType.EMBEDDING),
        (info("me/nomic-GGUF", "gguf", task="text-generation", gguf=gguf("nomic-bert", "")), ModelType.EMBEDDING),
        (info("me/embeddinggemma-GGUF", "gguf", gguf=gguf("gemma-embedding", "")), ModelType.EMBEDDING),
        (info("cross-encoder/ms-marco-MiniLM-L6-v2", "safetensors", task="text-ranking"), ModelType.RERANKER),
        (
            info("BAAI/bge-reranker-v2-m3", "safetensors", "sentence-transformers", task="text-classification"),
            ModelType.RERANKER,
        ),
        (info("me/bge-reranker-v2-m3-GGUF", "gguf", gguf=gguf("bert", "")), ModelType.RERANKER),
        (info("Qwen/Qwen3-Reranker-0.6B", "safetensors", task="text-generation"), ModelType.RERANKER),
        (info("me/mood", "safetensors", task="text-classification"), ModelType.CLASSIFIER),
        (info("google/gemma-3-4b-it", "safetensors", "conversational", task="image-text-to-text"), ModelType.VISION),
        (info("google/gemma-3-1b-it", "safetensors", "conversational", task="text-generation"), ModelType.CHAT),
        (info("Qwen/Qwen3-8B-Base", "safetensors", task="text-generation"), ModelType.COMPLETION),
        (info("unsloth/Qwen3-8B-GGUF", "gguf", gguf=gguf("qwen3")), ModelType.CHAT),
        (info("unsloth/Qwen3-8B-GGUF", "gguf"), ModelType.CHAT),
        (info("me/translator-GGUF", "gguf", task="translation", gguf=gguf("gemma3")), ModelType.CHAT),
    ],
    ids=lambda value: value["id"] if isinstance(value, dict) else str(value),
)
def test_type(record: dict[str, Any], kind: ModelType) -> None:
    assert base_of(record).type is kind


@pytest.mark.parametrize(
    ("record", "kind"),
    [
        (info("mlx-community/Qwen3-8B-4bit", "safetensors", "mlx", library="mlx"), "MLX"),
        (info("me/Qwen3-8B-exl2", "safetensors", "exl2"), "ExLlama"),
        (info("me/Qwen3-8B-exl3", "safetensors", "exl3"), "ExLlama"),
        (info("onnx-community/Qwen3-0.6B-ONNX", "onnx", library="transformers.js"), "ONNX"),
        (info("OpenVINO/Qwen3-8B-int4-ov", "openvino"), "OpenVINO"),
        (info("me/lora", "safetensors", "lora", library="peft"), "adapter"),
        (info("me/lora-GGUF", "gguf", "base_model:adapter:Qwen/Qwen3-8B"), "adapter"),
        (info("me/Z-Image-GGUF", "gguf", task="text-to-image", gguf=gguf("lumina2", "")), "diffusion"),
        (info("black-forest-labs/FLUX.1-dev", "diffusers", "safetensors", task="text-to-image"), "diffusion"),
        (info("openai/whisper-large-v3", "safetensors", task="automatic-speech-recognition"), "audio"),
        (info("hustvl/yolos-tiny", "safetensors", task="object-detection"), "image recognition"),
        (info("me/old", "pytorch", task="text-generation"), "neither GGUF nor safetensors"),
        (info("me/nothing"), "neither GGUF nor safetensors"),
        # These are models for mmd, whatever else the repository contains.
        (info("me/both", "gguf", "onnx", "safetensors"), None),
        (info("sentence-transformers/all-MiniLM-L6-v2", "safetensors", "onnx", "openvino"), None),
        (info("unsloth/Qwen3-8B-GGUF", "gguf", "base_model:quantized:Qwen/Qwen3-8B"), None),
    ],
    ids=lambda value: value["id"] if isinstance(value, dict) else str(value),
)
def test_what_no_engine_serves(record: dict[str, Any], kind: str | None) -> None:
    assert unsupported_format(record) == kind


@pytest.mark.parametrize(
    ("record", "quant"),
    [
        # The configuration takes precedence over tags, and tags over the name.
        (info("cyankiwi/Qwen3-8B-AWQ-4bit", "awq", config=quantised("compressed-tensors")), "compressed-tensors"),
        (info("Qwen/Qwen3-8B-AWQ", "safetensors", "4-bit", "awq"), "awq"),
        (info("Intel/model-int4-AutoRound", config=quantised("auto-round")), "auto-round"),
        (info("openai/gpt-oss-20b", "safetensors", "mxfp4", "8-bit"), "mxfp4"),
        (info("Qwen/Qwen3-8B-FP8", "safetensors", "fp8"), "fp8"),
        (info("unsloth/Qwen3-8B-bnb-4bit", "bitsandbytes", "4-bit"), "bitsandbytes"),
        (info("Qwen/Qwen3-8B", "safetensors"), ""),
    ],
    ids=lambda value: value["id"] if isinstance(value, dict) else value,
)
def test_quant(record: dict[str, Any], quant: str) -> None:
    assert base_of(record).quant == quant


def test_size_and_context() -> None:
    found = base_of(info("me/a", "gguf", gguf=gguf("qwen3")))
    assert (found.parameters, found.context_length) == (8_000_000_000, 40_960)
    found = base_of(info("me/a", "safetensors", safetensors={"parameters": {"BF16": 5}, "total": 5}))
    assert (found.parameters, found.context_length) == (5, 0)
    assert base_of({"id": "me/a"}).parameters == 0
    assert base_of(info("me/a", gguf={}, safetensors=None, cardData=None)).parameters == 0


def file(name: str, size_bytes: int) -> HubFile:
    return HubFile(name, size_bytes, None)


def test_offers_are_whole_models() -> None:
    found = offers_in(
        [
            file("Q8_0/big-00001-of-00002.gguf", 40),
            file("Q8_0/big-00002-of-00002.gguf", 30),
            file("small-Q4_K_M.gguf", 20),
            file("mmproj-BF16.gguf", 3),
            file("mmproj-F16.gguf", 2),
            file("imatrix.gguf", 1),
            file("config.json", 1),
            file("model-00001-of-00002.safetensors", 100),
            file("model-00002-of-00002.safetensors", 50),
        ]
    )
    assert set(found) == {
        HubModel("Q8_0/big-00001-of-00002.gguf", Format.GGUF, 70),
        HubModel("small-Q4_K_M.gguf", Format.GGUF, 20, 2),
        HubModel("model-00001-of-00002.safetensors", Format.SAFETENSORS, 150),
    }
