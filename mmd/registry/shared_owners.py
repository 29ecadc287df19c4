"""Who else looks after a file: what lies in the store of another program, or in an archive, is not mmd's to delete."""

from __future__ import annotations

import os
from pathlib import Path

_LM_STUDIO = "it is LM Studio's: delete it there, under My Models"
# Folders as those programs name them, one in the other, anywhere in a path.
_STORES = (
    ((".lmstudio",), _LM_STUDIO),
    (("lm-studio", "models"), _LM_STUDIO),
    ((".cache", "llama.cpp"), "it is in llama.cpp's own cache, from where llama-server -hf takes it"),
    (("nomic.ai", "GPT4All"), "it is GPT4All's: delete it there"),
)


def keeper_of(file: Path) -> str | None:
    """Whose it is and how to be rid of it, wherever links on the way to it begin; None for a file of the user's own."""
    real = Path(os.path.realpath(file))
    store = real.parent.parent
    if real.name.startswith("sha256-") and (store / "manifests").is_dir():
        return "it is in Ollama's store: ollama rm"
    if real.parent.name == "blobs" and (store / "snapshots").is_dir():
        return "it is in the Hugging Face cache, which has other names for it: hf cache rm"
    return next((reason for folders, reason in _STORES if _leads_through(folders, real)), None)


def _leads_through(folders: tuple[str, ...], file: Path) -> bool:
    words = file.parts[:-1]
    return any(words[place : place + len(folders)] == folders for place in range(len(words)))
