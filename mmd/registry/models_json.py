"""The registry's text: a line of JSON for each model."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from mmd.codec import BadRecord, decode, encode
from mmd.registry.record import Model

_ABOUT = "Written by mmd add and mmd remove, which rewrite the whole file. Settings go into mmd.toml."
_VERSION = 1


@dataclass(frozen=True, slots=True)
class _RegistryFile:
    version: int
    models: tuple[Model, ...]


def render(models: Iterable[Model]) -> bytes:
    head = encode({"about": _ABOUT, "version": _VERSION}).removesuffix(b"}")
    return head + b',"models":[\n' + b",\n".join(map(encode, models)) + b"\n]}\n"


def is_empty(content: bytes) -> bool:
    """Return whether a file that `render` made has no models."""
    return content.endswith(b'"models":[\n\n]}\n')


def parse(content: bytes) -> dict[str, Model]:
    """Return the models by id. Raise BadRecord, which names the line of a syntax error or the key."""
    file = decode(content, _RegistryFile)
    if file.version != _VERSION:  # an older mmd must not drop the keys of a newer one
        raise BadRecord(f"version: this mmd reads {_VERSION}, not {file.version}")
    models = {model.id: model for model in file.models}
    if len(models) < len(file.models):
        ids = [model.id for model in file.models]
        raise BadRecord(f"two models have the id {next(one for one in ids if ids.count(one) > 1)}")
    return models
