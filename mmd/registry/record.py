"""The record of one registered model."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from mmd.registry.layout import Layout


class Format(StrEnum):
    GGUF = "gguf"
    SAFETENSORS = "safetensors"


class ModelType(StrEnum):
    CHAT = "chat"
    VISION = "vision"  # chat that also takes images; a GGUF needs its projector beside it
    COMPLETION = "completion"  # a base model: generates, but has no chat template
    EMBEDDING = "embedding"
    RERANKER = "reranker"
    CLASSIFIER = "classifier"

    @property
    def generates(self) -> bool:
        """True if its models write text: one of these answers a request that names no model."""
        return self in (ModelType.CHAT, ModelType.VISION, ModelType.COMPLETION)


@dataclass(frozen=True, slots=True)
class Facts:
    """The facts read from a model's files."""

    format: Format
    type: ModelType
    architecture: str
    quant: str  # as users write it: "Q4_K_M", "F16", "awq-4bit", "fp8"
    weights_bytes: int  # sum over the tensors, all parts
    parameters: int
    context_length: int  # tokens the model was trained for; 0 if the file does not say
    kv_bytes_per_token: int  # f16 keys and values over all layers that cache each token
    chat_template: bool
    name: str  # its name in the file, "" if it has none
    # Only for safetensors, since llama.cpp reads its own file. Empty in a registry of an older version.
    template_marks: tuple[str, ...] = ()  # what chat_template.template_marks finds
    attention_heads: int = 0  # 0 if the file does not say
    layout: Layout | None = None  # None in a registry of an older version, until `mmd add` reads the file again

    @property
    def is_current(self) -> bool:
        """False if an older version of mmd read less from the files."""
        return self.layout is not None and bool(self.layout.embeddings_type or self.format is not Format.GGUF)


@dataclass(frozen=True, slots=True)
class Model:
    """One record of the registry: a name, where the files are, and the facts read from them."""

    id: str
    path: str  # absolute: the GGUF (its first part), or the folder of safetensors
    files: tuple[str, ...]  # absolute: every file the model consists of, `path` included for a GGUF
    projector: str | None  # absolute: the mmproj file of a vision GGUF
    source: str  # "file" or "hf:REPO@COMMIT"
    added: str  # ISO 8601, UTC
    licence: str  # the name on the hub, "apache-2.0"; "" if unknown
    facts: Facts
