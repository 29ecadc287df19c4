"""Detect the type of a GGUF from metadata and tensor names; the file name decides only if they do not."""

from __future__ import annotations

import re
from collections.abc import Mapping
from shlex import quote

from mmd.errors import NotRunnable
from mmd.registry.formats.gguf import GgufHeader, Value
from mmd.registry.record import ModelType

_ENCODERS = re.compile(r"([\w-]+-)?bert([\w-]+)?|eurobert|gemma-embedding|llama-embed|t5encoder")
_DIFFUSION = re.compile(
    r"flux\d?|sd[13x]l?|sdxl|lumina2|qwen_image|wan|hidream|cosmos|ltxv|aura|hyvid|chroma|pixart|z_image"
)
_VOCODERS = frozenset({"wavtokenizer-dec"})
_RANKS = 4  # enum llama_pooling_type; 1, 2 and 3 produce one vector per text
_POOLS = frozenset({1, 2, 3})

_RERANKER_NAME = re.compile(r"(?<![a-z])rerank(er)?(?![a-z])", re.IGNORECASE)
_EMBEDDING_NAME = re.compile(r"(?<![a-z])embed(ding)?s?(?![a-z])", re.IGNORECASE)


def is_projector(general: Mapping[str, Value]) -> bool:
    """True for an mmproj file, the part of a vision model that turns images into tokens."""
    return general.get("general.type") == "mmproj" or general.get("general.architecture") == "clip"


def refuse_non_models(general: Mapping[str, Value], path: str) -> None:
    """Raise NotRunnable for a GGUF that is not a language model."""
    architecture = str(general.get("general.architecture", ""))
    kind = general.get("general.type", "model")
    look = f"ls {quote(path.rpartition('/')[0] or '.')}   # the model itself may be there"
    if is_projector(general):
        raise NotRunnable(
            f"{path} is a projector (mmproj): the image part of a vision model, not a model by itself",
            hint=look,
        )
    if kind == "adapter":
        raise NotRunnable(
            f"{path} is a LoRA adapter: a change to another model, not a model by itself",
            hint=f"llama-export-lora -m BASE.gguf --lora {quote(path)} -o MERGED.gguf && mmd add MERGED.gguf",
        )
    if kind == "imatrix" or architecture == "imatrix":
        raise NotRunnable(f"{path} is an importance matrix, used to quantise a model", hint=look)
    if _DIFFUSION.fullmatch(architecture):
        raise NotRunnable(
            f"{path} is a diffusion model ({architecture}): it makes images or video, not text",
            hint="mmd list   # shows the models that run here; this one is for stable-diffusion.cpp or ComfyUI",
        )
    if architecture in _VOCODERS:
        raise NotRunnable(f"{path} is a vocoder ({architecture}): it turns audio codes into sound", hint=look)


def gguf_type(header: GgufHeader) -> ModelType:
    """Return the type, without regard to a projector."""
    architecture = header.architecture
    labels = header.metadata.get(f"{architecture}.classifier.output_labels")
    if isinstance(labels, tuple) and len(labels) > 1:
        return ModelType.CLASSIFIER
    pooling = header.integer(f"{architecture}.pooling_type")
    if pooling == _RANKS or labels or any(tensor.name.startswith("cls.") for tensor in header.tensors):
        return ModelType.RERANKER
    is_encoder = header.metadata.get(f"{architecture}.attention.causal") is False
    if pooling in _POOLS or is_encoder or is_encoder_architecture(architecture):
        return ModelType.EMBEDDING
    return generative_type(
        names=f"{header.text('general.name')} {header.path.name}",
        chat_template=bool(header.text("tokenizer.chat_template")),
    )


def is_encoder_architecture(architecture: str) -> bool:
    """True if the model reads a text in one pass and needs no cache."""
    return bool(_ENCODERS.fullmatch(architecture))


def generative_type(*, names: str, chat_template: bool) -> ModelType:
    """Return the type of a text generator, unless its name says reranker or embedding.

    The content cannot tell: Qwen3-Reranker is a Qwen3 with a chat template in every key.
    """
    if _RERANKER_NAME.search(names):
        return ModelType.RERANKER
    if _EMBEDDING_NAME.search(names):
        return ModelType.EMBEDDING
    return ModelType.CHAT if chat_template else ModelType.COMPLETION
