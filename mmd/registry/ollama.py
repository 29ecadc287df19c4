"""Ollama's store: GGUF files named by hash, and manifests that name the model of each."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from mmd.errors import BadModelFile
from mmd.registry.files import read_json_object

_MODEL = "application/vnd.ollama.image.model"
_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")


def is_store(folder: Path) -> bool:
    return (folder / "manifests").is_dir() and (folder / "blobs").is_dir() and any((folder / "blobs").glob("sha256-*"))


def models_in(store: Path) -> Iterator[tuple[Path, str]]:
    """Yield the weights of each model, and its name: "qwen3-8b" for Ollama's qwen3:8b."""
    for manifest in sorted((store / "manifests").rglob("*")):
        if manifest.is_file() and (digest := _weights(manifest)):
            yield (
                store / "blobs" / f"sha256-{digest}",
                f"{manifest.parent.name}-{manifest.name}".removesuffix("-latest"),
            )


def _weights(manifest: Path) -> str | None:
    try:
        layers = read_json_object(manifest).get("layers")
    except BadModelFile:
        return None  # a damaged manifest is for Ollama to repair
    for layer in layers if isinstance(layers, list) else ():
        if isinstance(layer, dict) and layer.get("mediaType") == _MODEL:
            digest = _DIGEST.fullmatch(str(layer.get("digest")))
            return digest[1] if digest else None
    return None
