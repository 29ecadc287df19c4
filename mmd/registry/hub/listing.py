"""The models that a repository on the hub contains, according to its record."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath
from typing import Any

from mmd.registry.hub.files import HubFile, Selection, is_projector, selections_in
from mmd.registry.offer import Base, HubModel
from mmd.registry.record import Format, ModelType

_TYPES = {
    "text-generation": ModelType.CHAT,
    "image-text-to-text": ModelType.VISION,
    "any-to-any": ModelType.VISION,
    "feature-extraction": ModelType.EMBEDDING,
    "sentence-similarity": ModelType.EMBEDDING,
    "text-ranking": ModelType.RERANKER,
    "text-classification": ModelType.CLASSIFIER,
}
_QUANTS = ("awq", "gptq", "fp8", "nvfp4", "mxfp4", "bitsandbytes", "compressed-tensors", "modelopt", "fp_quant")

# Formats that no engine of mmd serves, by tag or library, as they are named in messages.
_UNSUPPORTED = {
    "mlx": "MLX",
    "exl2": "ExLlama",
    "exl3": "ExLlama",
    "onnx": "ONNX",
    "openvino": "OpenVINO",
    "diffusers": "diffusion",
    "peft": "adapter",
    "lora": "adapter",
    "adapter": "adapter",
}
# Tasks without text output; image models are published as GGUF, too. "translation" and "summarization" are not here,
# because chat models often have these tags.
_OTHER_TASKS = {
    **dict.fromkeys(
        ("text-to-image", "image-to-image", "text-to-video", "image-to-video", "image-text-to-video", "text-to-3d"),
        "diffusion",
    ),
    **dict.fromkeys(
        ("automatic-speech-recognition", "text-to-speech", "text-to-audio", "audio-to-audio", "audio-classification"),
        "audio",
    ),
    **dict.fromkeys(
        ("image-classification", "object-detection", "image-segmentation", "mask-generation", "depth-estimation"),
        "image recognition",
    ),
}

Info = Mapping[str, Any]


def unsupported_format(info: Info) -> str | None:
    """Return what a repository contains instead of a model for mmd, "MLX" or "adapter"; None if it may be one."""
    tags = set(info.get("tags") or ())
    if task := _OTHER_TASKS.get(info.get("pipeline_tag") or ""):
        return task
    if "gguf" in tags:
        return "adapter" if any(tag.startswith("base_model:adapter:") for tag in tags) else None
    marks = (mark for mark in _UNSUPPORTED if mark in tags or info.get("library_name") == mark)
    # Many repositories of safetensors contain ONNX as well; in the repository of an adapter they are the adapter.
    found = [mark for mark in marks if "safetensors" not in tags or mark not in ("onnx", "openvino")]
    if found:
        return _UNSUPPORTED[found[0]]
    return None if "safetensors" in tags else "neither GGUF nor safetensors"


def base_of(info: Info) -> Base:
    """Return type and size, as far as the record has them."""
    counted = info.get("gguf") or info.get("safetensors") or {}
    return Base(
        type=_type(info),
        parameters=int(counted.get("total") or 0),
        context_length=int(counted.get("context_length") or 0),
        quant=_quant(info),
    )


def _type(info: Info) -> ModelType:
    tags, architecture = set(info.get("tags") or ()), str((info.get("gguf") or {}).get("architecture", ""))
    named = _TYPES.get(info.get("pipeline_tag") or "")
    if named is not ModelType.VISION and re.search(r"rerank", info.get("id", ""), re.IGNORECASE):
        return ModelType.RERANKER
    if named in (None, ModelType.CHAT) and ("sentence-transformers" in tags or re.search(r"bert|embed", architecture)):
        return ModelType.EMBEDDING
    if named is ModelType.CHAT and "conversational" not in tags and not (info.get("gguf") or {}).get("chat_template"):
        # The hub sets this tag if there is a chat template, but does not know the template of every GGUF.
        return ModelType.COMPLETION if "safetensors" in tags else ModelType.CHAT
    return named or ModelType.CHAT


def _quant(info: Info) -> str:
    """Return the quantisation of safetensors, from the tags or from the configuration in the record."""
    tags = {tag.lower() for tag in info.get("tags") or ()}
    config = (info.get("config") or {}).get("quantization_config") or {}
    return str(config.get("quant_method") or next((quant for quant in _QUANTS if quant in tags), ""))


def bases_of(info: Info) -> tuple[str, ...]:
    """Return the repositories that this one quantises; itself if it quantises none."""
    mark = "base_model:quantized:"
    return tuple(tag.removeprefix(mark) for tag in info.get("tags") or () if tag.startswith(mark)) or (info["id"],)


def offers_in(files: Iterable[HubFile]) -> tuple[HubModel, ...]:
    return tuple(offer_of(selection) for selection in selections_in(files))


def offer_of(selection: Selection) -> HubModel:
    suffix = PurePosixPath(selection.file).suffix.lower()
    weights = [file for file in selection.files if PurePosixPath(file.name).suffix.lower() == suffix]
    projectors = [file for file in weights if is_projector(file.name)]
    projector_bytes = sum(file.size_bytes for file in projectors)
    return HubModel(
        file=selection.file,
        format=Format.GGUF if suffix == ".gguf" else Format.SAFETENSORS,
        weights_bytes=sum(file.size_bytes for file in weights) - projector_bytes,
        projector_bytes=projector_bytes,
    )
