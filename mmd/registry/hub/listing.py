"""What the hub's record of a repository says of the models in it."""

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

# What is on the hub and served by no engine of mmd, by tag or library, in the words of a message.
_FOREIGN = {
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
# What makes no text, whatever its format: the weights of an image model come as GGUF too. What is tagged "translation"
# or "summarization" is often a model to talk with, so it is not here.
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


def foreign(info: Info) -> str | None:
    """What else a repository is, "MLX", "adapter"; None where it may be a model for mmd."""
    tags = set(info.get("tags") or ())
    if task := _OTHER_TASKS.get(info.get("pipeline_tag") or ""):
        return task
    if "gguf" in tags:
        return "adapter" if any(tag.startswith("base_model:adapter:") for tag in tags) else None
    marks = (mark for mark in _FOREIGN if mark in tags or info.get("library_name") == mark)
    # Many a repository of safetensors has its ONNX beside; in that of an adapter, they are the adapter.
    found = [mark for mark in marks if "safetensors" not in tags or mark not in ("onnx", "openvino")]
    if found:
        return _FOREIGN[found[0]]
    return None if "safetensors" in tags else "neither GGUF nor safetensors"


def base_of(info: Info) -> Base:
    """Type and size; what a record does not say is left open."""
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
        # Only records of models with a template are tagged so; of some GGUFs the hub does not tell.
        return ModelType.COMPLETION if "safetensors" in tags else ModelType.CHAT
    return named or ModelType.CHAT


def _quant(info: Info) -> str:
    """Of safetensors, from the tags, or from the configuration that the hub has read."""
    tags = {tag.lower() for tag in info.get("tags") or ()}
    config = (info.get("config") or {}).get("quantization_config") or {}
    return str(config.get("quant_method") or next((quant for quant in _QUANTS if quant in tags), ""))


def bases_of(info: Info) -> tuple[str, ...]:
    """The repositories that this one quantises; itself where it quantises none."""
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
