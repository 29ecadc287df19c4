"""Model ids: short unique lower-case names that systemd accepts in a unit name."""

from __future__ import annotations

import re
from collections.abc import Container
from pathlib import Path

from mmd.errors import WrongUsage
from mmd.registry.formats.folder import repository_name
from mmd.registry.record import Facts, Format

_MAX_LEN = 64
_VALID = re.compile(rf"[a-z0-9][a-z0-9._-]{{0,{_MAX_LEN - 1}}}")
_PART = re.compile(r"-\d{5}-of-\d{5}$")
_QUANT = re.compile(
    r"[-_.](?:ud-|i1-)?(?:i?q\d(?:_[a-z0-9]+)+|tq\d_\d|bf16|fp?16|fp?32|mxfp4(?:_moe)?|nvfp4)$", re.IGNORECASE
)
_GGUF = re.compile(r"[-_.](?:gguf|i1|imat)$", re.IGNORECASE)
# File names that do not describe the model: its own name or its folder's is used instead.
_GENERIC = frozenset({"", "model", "ggml-model", "gguf", "weights", "pytorch_model", "consolidated"})


def require_valid(model_id: str) -> None:
    if not _VALID.fullmatch(model_id):
        raise WrongUsage(
            f"{model_id!r} is not a valid model id: use lower-case letters, digits and . _ -, at most {_MAX_LEN}",
            hint=f"mmd add PATH --id {_slug(model_id) or 'my-model'}",
        )


def new_id(path: Path, facts: Facts, taken: Container[str], name: str = "") -> str:
    """Return a free id: the model's name; if that is taken, with its quantisation; else with a number.

    `name` is the name that another program has for the model, for a file whose own name does not describe it.
    """
    base = _slug(name) or _base(path, facts)
    if base not in taken:
        return base
    quant = _slug(facts.quant.partition(" (")[0])
    base = f"{base[: _MAX_LEN - 1 - len(quant)]}-{quant}"
    if base not in taken:
        return base
    number = 2
    while (numbered := f"{base[: _MAX_LEN - 1 - len(str(number))]}-{number}") in taken:
        number += 1
    return numbered


def _base(path: Path, facts: Facts) -> str:
    if facts.format is Format.SAFETENSORS:
        return _slug(repository_name(path)) or "model"
    for name in (_without_quant(path.stem), facts.name, _without_quant(repository_name(path.parent))):
        if name.lower() not in _GENERIC and _slug(name):
            return _slug(name)
    return "model"


def _without_quant(name: str) -> str:
    """ "Qwen3-8B-Q4_K_M-00001-of-00003" is a "Qwen3-8B"."""
    for suffix in (_PART, _GGUF, _QUANT, _GGUF):
        name = suffix.sub("", name)
    return name


def _slug(name: str) -> str:
    slug = re.sub(r"[^a-z0-9._-]+", "-", name.lower())
    return slug.lstrip("._-")[:_MAX_LEN].rstrip("._-")
