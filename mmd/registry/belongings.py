"""Which files belong to a model: its weights, and what lies beside them for its engine."""

from __future__ import annotations

import re
from pathlib import Path

from mmd.registry.record import Format, Model

# What vLLM and transformers read, with the card and the licence. No *.txt but these two: a user's notes are one, too.
_BESIDE_WEIGHTS = re.compile(
    r"[^/]+\.(?:json|jinja|model|tiktoken|py)|vocab\.txt|merges\.txt|README\.md|(?:LICENSE|NOTICE|USE_POLICY)[^/]*"
    r"|additional_chat_templates/[^/]+\.jinja|\d+_\w+/(?:config\.json|model\.safetensors)"
)


def files_of(model: Model) -> tuple[str, ...]:
    """Every file of a model, absolute, whether or not it is still there: the weights first."""
    weights = (*model.files, *((model.projector,) if model.projector else ()))
    if model.facts.format is not Format.SAFETENSORS:
        return weights
    folder = Path(model.path)
    beside = sorted(str(path) for path in _down_to_one_folder(folder) if _is_beside(path, folder))
    return (*weights, *(path for path in beside if path not in weights))


def _down_to_one_folder(folder: Path) -> list[Path]:
    return [*folder.glob("*"), *folder.glob("*/*")]


def _is_beside(path: Path, folder: Path) -> bool:
    return bool(_BESIDE_WEIGHTS.fullmatch(path.relative_to(folder).as_posix())) and path.is_file()
