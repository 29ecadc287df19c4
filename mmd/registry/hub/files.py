"""Which files of a hub repository make one model."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from shlex import quote

from mmd.errors import FileNeeded, NotRunnable
from mmd.registry.hub.names import stays_inside

_SPLIT = re.compile(r"(?P<stem>.+)-\d{5}-of-(?P<count>\d{5})\.gguf", re.IGNORECASE)
_NO_MODEL = re.compile(r"mmproj|imatrix", re.IGNORECASE)
# What vLLM and transformers read beside the weights; never *.bin, *.pt and other pickles.
_COMPANIONS = re.compile(r"[^/]+\.(?:json|jinja|model|tiktoken|txt)|additional_chat_templates/[^/]+\.jinja")
# The modules of sentence-transformers, which say how an embedding is pooled.
_POOLING = re.compile(r"\d+_\w+/(?:config\.json|model\.safetensors)")
_MAX_SHOWN = 40


@dataclass(frozen=True, slots=True)
class HubFile:
    """One file as the hub lists it."""

    name: str  # with its folders, as in "Q4_K_M/model-00001-of-00002.gguf"
    size_bytes: int
    sha256: str | None  # the hub has it for large files only


@dataclass(frozen=True, slots=True)
class Selection:
    """The files of one model; `file` names the model: in requests, and in the registry."""

    file: str
    files: tuple[HubFile, ...]

    @property
    def total_bytes(self) -> int:
        return sum(file.size_bytes for file in self.files)

    def path_in(self, folder: Path) -> Path:
        """Return the model's path in the repository's folder: its (first) GGUF, or the folder of its safetensors."""
        first = folder / self.file
        return first.parent if first.suffix == ".safetensors" else first


def select(repository: str, listed: Iterable[HubFile], wanted: str | None) -> Selection:
    """Return the model that contains the file `wanted`; without it, the only model.

    Raises FileNeeded with the choices if there are several, and NotRunnable if there is none.
    """
    selections = selections_in(listed)
    if not selections:
        raise NotRunnable(
            f"{repository} has no model that the engines here serve: neither GGUF nor safetensors",
            hint=f"xdg-open 'https://huggingface.co/models?other=base_model:quantized:{repository}'   # others",
        )
    if wanted is None and len(selections) == 1:
        return selections[0]
    for selection in selections:
        if wanted is not None and any(file.name == wanted for file in selection.files):
            return selection
    shown = ", ".join(selection.file for selection in selections[:_MAX_SHOWN])
    shown += ", …" if len(selections) > _MAX_SHOWN else ""
    message = (
        f"{repository} contains {len(selections)} models"
        if wanted is None
        else f"{repository} has no {wanted}; it contains"
    )
    raise FileNeeded(
        f"{message}: {shown}", hint=f"mmd pull {quote(f'{repository}:{selections[0].file}')}   # for example"
    )


def selections_in(listed: Iterable[HubFile]) -> tuple[Selection, ...]:
    """Return every model of a repository: each GGUF, split or not, and its safetensors as one."""
    files = sorted((file for file in listed if stays_inside(file.name)), key=lambda file: file.name)
    return (*_ggufs(files), *_safetensors(files))


def _ggufs(files: list[HubFile]) -> list[Selection]:
    parts: dict[tuple[str, int], list[HubFile]] = {}
    for file in files:
        if file.name.lower().endswith(".gguf") and not _NO_MODEL.search(PurePosixPath(file.name).name):
            split = _SPLIT.fullmatch(file.name)
            model = (split["stem"], int(split["count"])) if split else (file.name, 1)
            parts.setdefault(model, []).append(file)
    # A split model cannot run if the repository lacks a part, which would show only after a download of 30 GB.
    whole = [found for (_, count), found in parts.items() if len(found) == count]
    return [Selection(found[0].name, (*found, *_projector(files, found[0]))) for found in whole]


def _projector(files: list[HubFile], model: HubFile) -> list[HubFile]:
    """Return the projector in the model's folder: of several the one in F16, as llama.cpp does by default."""
    folder = PurePosixPath(model.name).parent
    beside = [file for file in files if PurePosixPath(file.name).parent == folder and is_projector(file.name)]
    half = [file for file in beside if re.search(r"(?<!b)f16", file.name, re.IGNORECASE)]
    return (half or beside)[:1]


def is_projector(name: str) -> bool:
    return name.lower().endswith(".gguf") and "mmproj" in PurePosixPath(name).name.lower()


def _safetensors(files: list[HubFile]) -> list[Selection]:
    weights = [file for file in files if re.fullmatch(r"[^/]+\.safetensors", file.name)]
    # Mistral publishes the same weights twice, once in its own layout.
    weights = [file for file in weights if not file.name.startswith("consolidated")] or weights
    if not weights or not any(file.name == "config.json" for file in files):
        return []
    beside = [
        file
        for file in files
        if _POOLING.fullmatch(file.name)
        or (_COMPANIONS.fullmatch(file.name) and not file.name.startswith("consolidated"))
    ]
    return [Selection(weights[0].name, (*beside, *weights))]
