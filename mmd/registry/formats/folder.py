"""Read the small files beside a model's weights: config.json, and the marker files of other kinds of folders."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Any
from urllib.parse import quote_plus

from mmd.errors import BadModelFile
from mmd.registry.files import open_regular, read_json_object
from mmd.registry.formats.config_defaults import DEFAULTS

# Sections with the language model of a multimodal model (vLLM's get_text_config).
_TEXT_CONFIGS = ("text_config", "language_config", "llm_config", "thinker_config")
_FRONT_MATTER_BYTES = 65536


@dataclass(frozen=True, slots=True)
class Config:
    """A JSON object from an untrusted file. Getters check types and raise BadModelFile naming the key."""

    path: Path
    data: Mapping[str, Any]

    def integer(self, *keys: str) -> int | None:
        """Return the value of the first of `keys` that is present and not null."""
        for key in keys:
            value = self.data.get(key)
            if value is None:
                continue
            if not isinstance(value, int) or not 0 <= value < 1 << 40:
                raise self._wrong(key, "a valid number")
            return value
        return None

    def widest(self, *keys: str) -> int | None:
        """Like `integer`, but return the maximum of a list with one number per layer (Gemma 3n, Hunyuan)."""
        for key in keys:
            value = self.data.get(key)
            if isinstance(value, list):
                return max((Config(self.path, {key: item}).integer(key) or 0 for item in value), default=0)
            if value is not None:
                return self.integer(key)
        return None

    def text(self, key: str) -> str:
        value = self.data.get(key)
        if value is not None and not isinstance(value, str):
            raise self._wrong(key, "a string")
        return value or ""

    def texts(self, key: str) -> tuple[str, ...]:
        value = self.data.get(key) or []
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise self._wrong(key, "a list of strings")
        return tuple(value)

    def section(self, key: str) -> Config:
        """Return the object under `key`, empty if absent."""
        value = self.data.get(key)
        if value is not None and not isinstance(value, dict):
            raise self._wrong(key, "an object")
        return Config(self.path, value or {})

    def flag(self, key: str) -> bool:
        return self.data.get(key) is True

    def language(self) -> Config:
        """Return the configuration of the language model, a section in multimodal models, with defaults filled in."""
        for key in _TEXT_CONFIGS:
            if self.data.get(key):
                return self.section(key).language()
        return Config(self.path, {**DEFAULTS.get(self.text("model_type"), {}), **self.data})

    def has(self, key: str) -> bool:
        """True if `key` is set here or one level down (Qwen-Omni nests its `vision_config`)."""
        return bool(self.data.get(key)) or any(
            isinstance(section, dict) and section.get(key) for section in self.data.values()
        )

    def _wrong(self, key: str, wanted: str) -> BadModelFile:
        return BadModelFile(
            f"{self.path} is damaged: `{key}` is not {wanted}",
            hint=f"cat {quote(str(self.path))}   # shows the content",
        )


def read_config(folder: Path, name: str = "config.json") -> Config:
    """Read a configuration file of the folder; empty if the file is absent."""
    path = folder / name
    return Config(path, read_json_object(path))


def pools_sentences(folder: Path) -> bool:
    """True for a sentence-transformers embedding model, whatever `architectures` says."""
    if (folder / "1_Pooling" / "config.json").exists():
        return True
    modules = folder / "modules.json"
    if modules.exists():
        with open_regular(modules) as file:
            return b"sentence_transformers.models.Pooling" in file.read(_FRONT_MATTER_BYTES)
    marker = read_config(folder, "config_sentence_transformers.json")
    return bool(marker.data) and marker.text("model_type") != "CrossEncoder"


def front_matter(folder: Path, key: str) -> str:
    """Return a value from the model card's front matter, "" if absent."""
    card = folder / "README.md"
    if not card.is_file():
        return ""
    with open_regular(card) as file:
        text = file.read(_FRONT_MATTER_BYTES).decode("utf-8", errors="replace")
    front = re.match(r"---\n(.*?)\n---", text, re.DOTALL)
    found = front and re.search(rf"^{key}:\s*['\"]?([\w.-]+)", front[1], re.MULTILINE)
    return found[1] if found else ""


def search_hint(name: str) -> str:
    """Return a command that searches the hub for the model in a supported format."""
    return f"xdg-open 'https://huggingface.co/models?search={quote_plus(name)}'   # as GGUF or safetensors"


def repository_name(folder: Path) -> str:
    """Return the folder's name, or the repository's name for a snapshot in the Hugging Face cache."""
    if folder.parent.name == "snapshots":
        return folder.parent.parent.name.rpartition("--")[2]
    return folder.name
