"""The files of a model: its weights, and the companion files that its engine reads."""

from __future__ import annotations

import os
import re
from pathlib import Path

from mmd.registry.record import Format, Model

# What vLLM and transformers read, the card and the licence. Only these two *.txt: others may be a user's notes.
_BESIDE_WEIGHTS = re.compile(
    r"[^/]+\.(?:json|jinja|model|tiktoken|py)|vocab\.txt|merges\.txt|README\.md|(?:LICENSE|NOTICE|USE_POLICY)[^/]*"
    r"|additional_chat_templates/[^/]+\.jinja|\d+_\w+/(?:config\.json|model\.safetensors)"
)

# Of those, the ones that surely came with the weights: a train.py or a results.json may be the user's own work.
_CAME_WITH_WEIGHTS = re.compile(
    r"(?:added_tokens|chat_template|config|config_sentence_transformers|generation_config|hf_quant_config|modules|params"
    r"|preprocessor_config|processor_config|quant_config|quantize_config|sentence_bert_config|special_tokens_map|tekken"
    r"|tokenizer|tokenizer_config|video_preprocessor_config|vocab|[^/]+\.safetensors\.index)\.json"
    r"|(?:configuration|feature_extraction|image_processing|modeling|processing|tokenization)_\w+\.py"
    r"|(?:sentencepiece\.bpe|spiece|tokenizer)\.model|[^/]+\.tiktoken|chat_template\.jinja|vocab\.txt|merges\.txt"
    r"|additional_chat_templates/[^/]+\.jinja|\d+_\w+/(?:config\.json|model\.safetensors)"
)
_CARD = re.compile(r"README\.md|(?:LICENSE|NOTICE|USE_POLICY)[^/]*")
_MODULES = re.compile(r"\d+_\w+|additional_chat_templates")
# What `mmd archive` writes beside the files of the model: its record and its manifest.
ARCHIVE_RECORD, ARCHIVE_MANIFEST = "mmd-model.toml", "mmd-manifest.json"


def files_of(model: Model) -> tuple[str, ...]:
    """Return the absolute paths of a model's files, weights first, whether or not they exist."""
    weights = (*model.files, *((model.projector,) if model.projector else ()))
    if model.facts.format is not Format.SAFETENSORS:
        return weights
    folder = Path(model.path)
    beside = sorted(str(path) for path in _down_to_one_folder(folder) if _is_beside(path, folder))
    return (*weights, *(path for path in beside if path not in weights))


def _down_to_one_folder(folder: Path) -> list[Path]:
    return [*folder.glob("*"), *folder.glob("*/*")]


def _is_beside(path: Path, folder: Path) -> bool:
    name = path.relative_to(folder).as_posix()
    # No hub has unprintable names, and a manifest cannot hold them.
    is_named_so = bool(_BESIDE_WEIGHTS.fullmatch(name)) and name.isprintable() and name != ARCHIVE_MANIFEST
    return is_named_so and os.path.isfile(path)  # noqa: PTH113  is_file() raises if a folder cannot be read


def may_be_users_own(model: Model, path: str) -> bool:
    """True if a file beside the weights may be the user's own work.

    A card and a licence count as the user's if the folder holds anything else that is.
    """
    folder = Path(model.path)
    if path in model.files or model.facts.format is not Format.SAFETENSORS:
        return False
    name = Path(path).relative_to(folder).as_posix()
    if _CARD.fullmatch(name):
        return any(_is_strange(one, model) for one in folder.iterdir())
    return not _CAME_WITH_WEIGHTS.fullmatch(name)


def _is_strange(path: Path, model: Model) -> bool:
    known = _MODULES if path.is_dir() else _CARD if _CARD.fullmatch(path.name) else _CAME_WITH_WEIGHTS
    is_hidden = path.name.startswith(".")  # files of git and huggingface_hub
    return not is_hidden and str(path) not in model.files and not known.fullmatch(path.name)
