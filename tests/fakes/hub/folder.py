"""Repositories of the fake hub from folders OWNER/NAME, with what the hub would read from the files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from mmd.errors import MmdError
from mmd.registry.detect import examine
from mmd.registry.record import Format
from tests.fakes.hub.content import OnDisk
from tests.fakes.hub.repository import FakeRepository

_PIPELINES = {
    "chat": "text-generation",
    "completion": "text-generation",
    "vision": "image-text-to-text",
    "embedding": "feature-extraction",
    "reranker": "text-ranking",
    "classifier": "text-classification",
}


def repositories_in(folder: Path) -> dict[str, FakeRepository]:
    """Return every OWNER/NAME below a folder. FILE.sha256 beside a FILE, as sha256sum writes it, saves hashing a huge
    one.
    """
    found = sorted(path for path in folder.glob("*/*") if path.is_dir())
    return {f"{path.parent.name}/{path.name}": _repository(path) for path in found}


def _repository(folder: Path) -> FakeRepository:
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix != ".sha256")
    files = {str(path.relative_to(folder)): OnDisk(path, _given_sha256(path)) for path in paths}
    card = _card(folder / "README.md")
    bases = card.get("base_model", ())
    formats = {path.suffix.removeprefix(".") for path in paths} & {"gguf", "safetensors"}
    return FakeRepository(
        files,
        tags=(*sorted(formats), *card.get("tags", ())),
        gated=bool(card.get("extra_gated_prompt")),
        card=card,
        base_models=(bases,) if isinstance(bases, str) else tuple(bases),
        **_read_from(next((path for path in paths if path.suffix == ".gguf"), folder)),
    )


def _given_sha256(path: Path) -> str:
    beside = path.with_name(f"{path.name}.sha256")
    return beside.read_text().split()[0] if beside.exists() else ""


def _card(readme: Path) -> dict[str, Any]:
    parts = readme.read_text().split("---\n", 2) if readme.exists() else []
    return yaml.safe_load(parts[1]) if len(parts) == 3 and not parts[0] else {}


def _read_from(model: Path) -> Mapping[str, Any]:
    try:
        facts = examine(model).facts
    except MmdError:
        return {}  # the hub also lists repositories that nothing can run
    if facts.format is Format.GGUF:
        said = {
            "total": facts.parameters,
            "architecture": facts.architecture,
            "context_length": facts.context_length,
        }
        return {"gguf": said, "pipeline_tag": _PIPELINES[facts.type], "library_name": "gguf"}
    weights = {"parameters": {"BF16": facts.parameters}, "total": facts.parameters}
    return {"safetensors": weights, "pipeline_tag": _PIPELINES[facts.type], "library_name": "transformers"}
