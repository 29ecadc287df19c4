"""What is known of one registered model."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from mmd.registry.layout import Anatomy


class Format(StrEnum):
    GGUF = "gguf"
    SAFETENSORS = "safetensors"


class ModelType(StrEnum):
    CHAT = "chat"
    VISION = "vision"  # chat that also takes images; a GGUF is one only with its projector beside it
    COMPLETION = "completion"  # a base model: generates, but has no chat template
    EMBEDDING = "embedding"
    RERANKER = "reranker"
    CLASSIFIER = "classifier"


@dataclass(frozen=True, slots=True)
class Facts:
    """What a model's files say of themselves; read from content, never stored state."""

    format: Format
    type: ModelType
    architecture: str
    quant: str  # as people write it: "Q4_K_M", "F16", "awq-4bit", "fp8"
    weights_bytes: int  # sum over the tensors, all parts
    parameters: int
    context_length: int  # tokens the model was trained for; 0 where the file does not say
    kv_bytes_per_token: int  # f16 keys and values over all layers that cache each token
    chat_template: bool
    name: str  # what the file calls itself, "" where it does not
    # Safetensors only, for vLLM; llama.cpp reads its own file. Empty in registries that older versions wrote.
    template_marks: tuple[str, ...] = ()  # what chat_template.template_marks finds
    attention_heads: int = 0  # 0 where the file does not say
    anatomy: Anatomy | None = None  # None in registries that older versions wrote, until `mmd add` reads it again


@dataclass(frozen=True, slots=True)
class Model:
    """One record of the registry: a name, where the files are, and the facts read from them."""

    id: str
    path: str  # absolute: the GGUF (its first part), or the folder of safetensors
    files: tuple[str, ...]  # absolute: every file the model consists of, `path` included for a GGUF
    projector: str | None  # absolute: the mmproj file of a vision GGUF
    source: str  # "file" or "hf:REPO@COMMIT"
    added: str  # ISO 8601, UTC
    licence: str  # as the hub names it, "apache-2.0"; "" where nobody said
    facts: Facts
