"""The record of a search hit for the API and `--json`. It is separate so that the gateway imports no hub library."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mmd.registry.licence import Terms
from mmd.registry.record import Format, ModelType


@dataclass(frozen=True, slots=True)
class HubHit:
    """A repository on the hub. `needs_bytes` is estimated from file sizes, for a context that is long enough for use;
    `recommended_file` is null if no file of it runs here.
    """

    id: str
    type: ModelType
    parameters: int
    context: int
    formats: tuple[Format, ...]
    recommended_file: str | None
    file_bytes: int
    needs_bytes: int
    runs: Literal["gpu", "cpu", "partly", "no"]
    why: str
    licence: str
    terms: Terms
    gated: bool
    downloads: int
    likes: int
    updated: str | None
    tags: tuple[str, ...]
