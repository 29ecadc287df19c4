"""Records of the API that only HTTP has. OpenAPI shows their docstrings."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal

from mmd.control.state.model_info import ModelInfo
from mmd.control.state.residencies import StatusWord
from mmd.gateway.api.download_jobs import JobState
from mmd.registry.hub.progress import FileProgress


@dataclass(frozen=True, slots=True)
class Health:
    status: Literal["ok"] = "ok"


@dataclass(frozen=True, slots=True)
class ListedModel(ModelInfo):
    """A registered model. `idle_seconds` since its last response; null if this gateway has seen none."""

    idle_seconds: float | None

    @classmethod
    def of(cls, model: ModelInfo, idle_seconds: float | None) -> ListedModel:
        return cls(**{one.name: getattr(model, one.name) for one in fields(model)}, idle_seconds=idle_seconds)


@dataclass(frozen=True, slots=True)
class ErrorDetails:
    """An error of mmd itself. `hint` is a command; `engine_lines` are the last lines of an engine that failed."""

    message: str
    type: str
    code: str
    hint: str
    source: Literal["mmd"]
    engine_lines: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Error:
    error: ErrorDetails


@dataclass(frozen=True, slots=True)
class DownloadRecord:
    """A download. `error` and `model`, the id that it is registered under, are there once they are known."""

    id: str
    repo: str
    file: str
    revision: str
    state: JobState
    done_bytes: int
    total_bytes: int
    files_done: int
    files_total: int
    rate_bytes_per_second: float | None
    remaining_seconds: float | None
    files: tuple[FileProgress, ...]
    note: str
    error: ErrorDetails | None = None
    model: str | None = None


@dataclass(frozen=True, slots=True)
class OpenAIModel:
    """A model in the form of OpenAI's API, with mmd's `aliases` and `status`."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    aliases: tuple[str, ...]
    status: StatusWord

    @classmethod
    def of(cls, model: ModelInfo) -> OpenAIModel:
        return cls(model.id, "model", 0, "mmd", model.aliases, model.status)


@dataclass(frozen=True, slots=True)
class OpenAIModels:
    object: Literal["list"]
    data: tuple[OpenAIModel, ...]
