"""Files that another program manages, such as LM Studio or Ollama: mmd does not delete them."""

from __future__ import annotations

import os
from pathlib import Path

_LM_STUDIO = "it is LM Studio's: delete it there, under My Models"
# Nested folders as those programs name them, anywhere in a path.
_STORES = (
    ((".lmstudio",), _LM_STUDIO),
    (("lm-studio", "models"), _LM_STUDIO),
    ((".cache", "llama.cpp"), "it is in llama.cpp's own cache, which llama-server -hf uses"),
    (("nomic.ai", "GPT4All"), "it is GPT4All's: delete it there"),
)


def owner_of(file: Path) -> str | None:
    """Return which program manages a file and how to delete it there, links resolved; None if none does."""
    real = Path(os.path.realpath(file))
    store = real.parent.parent
    if real.name.startswith("sha256-") and (store / "manifests").is_dir():
        return "it is in Ollama's store: ollama rm"
    if real.parent.name == "blobs" and (store / "snapshots").is_dir():
        return "it is in the Hugging Face cache under another name: hf cache rm"
    return next((reason for folders, reason in _STORES if _leads_through(folders, real)), None)


def _leads_through(folders: tuple[str, ...], file: Path) -> bool:
    words = file.parts[:-1]
    return any(words[place : place + len(folders)] == folders for place in range(len(words)))
