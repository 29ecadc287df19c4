"""What the small files beside a model's weights say: config.json and the markers of other kinds of folders."""

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

# Where multimodal models keep the configuration of their language part (vLLM's get_text_config).
_TEXT_CONFIGS = ("text_config", "language_config", "llm_config", "thinker_config")
_FRONT_MATTER_BYTES = 65536


@dataclass(frozen=True, slots=True)
class Config:
    """A JSON object of outside data; the getters name the key in their errors."""

    path: Path
    data: Mapping[str, Any]

    def integer(self, *keys: str) -> int | None:
        """The first of `keys` that is present and not null."""
        for key in keys:
            value = self.data.get(key)
            if value is None:
                continue
            if not isinstance(value, int) or not 0 <= value < 1 << 40:
                raise self._wrong(key, "a sensible number")
            return value
        return None

    def widest(self, *keys: str) -> int | None:
        """As `integer`, of what some models list layer by layer (Gemma 3n, Hunyuan): the largest."""
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
        """The object under `key`, empty where there is none."""
        value = self.data.get(key)
        if value is not None and not isinstance(value, dict):
            raise self._wrong(key, "an object")
        return Config(self.path, value or {})

    def flag(self, key: str) -> bool:
        return self.data.get(key) is True

    def language(self) -> Config:
        """The part that describes the language model, a section of its own in multimodal models; with what is usual for
        its kind where it leaves that out.
        """
        for key in _TEXT_CONFIGS:
            if self.data.get(key):
                return self.section(key).language()
        return Config(self.path, {**DEFAULTS.get(self.text("model_type"), {}), **self.data})

    def has(self, key: str) -> bool:
        """Whether `key` is set here or in a section one level down (Qwen-Omni nests its `vision_config`)."""
        return bool(self.data.get(key)) or any(
            isinstance(section, dict) and section.get(key) for section in self.data.values()
        )

    def _wrong(self, key: str, wanted: str) -> BadModelFile:
        return BadModelFile(
            f"{self.path} is damaged: `{key}` is not {wanted}",
            hint=f"cat {quote(str(self.path))}   # what it is",
        )


def read_config(folder: Path, name: str = "config.json") -> Config:
    """A configuration file of the folder, empty where it is absent."""
    path = folder / name
    return Config(path, read_json_object(path))


def pools_sentences(folder: Path) -> bool:
    """Whether this is a sentence-transformers embedding model, whatever `architectures` says."""
    if (folder / "1_Pooling" / "config.json").exists():
        return True
    modules = folder / "modules.json"
    if modules.exists():
        with open_regular(modules) as file:
            return b"sentence_transformers.models.Pooling" in file.read(_FRONT_MATTER_BYTES)
    marker = read_config(folder, "config_sentence_transformers.json")
    return bool(marker.data) and marker.text("model_type") != "CrossEncoder"


def front_matter(folder: Path, key: str) -> str:
    """A value from the model card's front matter, "" where it is not there."""
    card = folder / "README.md"
    if not card.is_file():
        return ""
    with open_regular(card) as file:
        text = file.read(_FRONT_MATTER_BYTES).decode("utf-8", errors="replace")
    front = re.match(r"---\n(.*?)\n---", text, re.DOTALL)
    found = front and re.search(rf"^{key}:\s*['\"]?([\w.-]+)", front[1], re.MULTILINE)
    return found[1] if found else ""


def search_hint(name: str) -> str:
    """Where to look for a model in a format that runs here."""
    return f"xdg-open 'https://huggingface.co/models?search={quote_plus(name)}'   # as GGUF or safetensors"


def repository_name(folder: Path) -> str:
    """The folder's name, or the repository's where the folder is a snapshot in the Hugging Face cache."""
    if folder.parent.name == "snapshots":
        return folder.parent.parent.name.rpartition("--")[2]
    return folder.name
