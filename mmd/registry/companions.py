"""Which files belong to a model: its weights, and what lies beside them for its engine."""

from __future__ import annotations

import os
import re
from pathlib import Path

from mmd.registry.record import Format, Model

# What vLLM and transformers read, with the card and the licence. No *.txt but these two: a user's notes are one, too.
_BESIDE_WEIGHTS = re.compile(
    r"[^/]+\.(?:json|jinja|model|tiktoken|py)|vocab\.txt|merges\.txt|README\.md|(?:LICENSE|NOTICE|USE_POLICY)[^/]*"
    r"|additional_chat_templates/[^/]+\.jinja|\d+_\w+/(?:config\.json|model\.safetensors)"
)

# Of those, the ones that came with the weights for sure: a train.py or a results.json may be its user's own work.
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
# What an archive has beside the files of its model: the record and the manifest of `mmd archive`.
ARCHIVE_RECORD, ARCHIVE_MANIFEST = "mmd-model.toml", "mmd-manifest.json"


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
    name = path.relative_to(folder).as_posix()
    # No hub has a name that cannot be written down, nor could a manifest hold it.
    is_named_so = bool(_BESIDE_WEIGHTS.fullmatch(name)) and name.isprintable() and name != ARCHIVE_MANIFEST
    return is_named_so and os.path.isfile(path)  # noqa: PTH113  where it may not be looked at, is_file() raises


def is_somebodys_work(model: Model, path: str) -> bool:
    """Whether a file beside the weights may be that of a person who works in the folder. A model's card and licence
    are taken for such where there is anything else of theirs.
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
    is_hidden = path.name.startswith(".")  # what git and huggingface_hub keep for themselves
    return not is_hidden and str(path) not in model.files and not known.fullmatch(path.name)
