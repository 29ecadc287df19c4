"""The registered models: whether their files are what they were, and whether an engine serves them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from shlex import quote

from mmd.control.doctor.diagnosis import Diagnosis, failed, ok, warning
from mmd.control.install.engines import EngineStatus
from mmd.paths import config_file
from mmd.plan.boot import Startup
from mmd.registry import manifest
from mmd.registry.cache_link import cache_link
from mmd.registry.manifest import Manifest
from mmd.registry.record import Format, Model
from mmd.registry.store import missing_files
from mmd.settings import Settings

_ENGINE_OF = {Format.GGUF: "llama.cpp", Format.SAFETENSORS: "vllm"}
_NAMED = 3


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """What is wrong with a model's files, by a look at the file system alone."""

    model: str
    missing: tuple[str, ...] = ()
    unreadable: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()  # of another size than when they were registered
    is_short: bool = False  # its files are smaller than the weights that they are to hold
    is_record_damaged: bool = False  # of the sizes and hashes
    get_again: str = ""  # the command, for one that came from the hub


def read_model_files(models: Iterable[Model]) -> tuple[ModelFiles, ...]:
    return tuple(map(_files, models))


def _files(model: Model) -> ModelFiles:
    recorded = _recorded(model.id)
    expected = recorded or {}
    missing = missing_files(model)
    there = [file for file in dict.fromkeys((*model.files, *expected)) if os.path.isfile(file)]  # noqa: PTH113  strings
    return ModelFiles(
        model=model.id,
        missing=missing,
        unreadable=tuple(file for file in there if not os.access(file, os.R_OK)),
        changed=tuple(
            file
            for file in there
            if file in expected and os.path.getsize(file) != expected[file].size_bytes  # noqa: PTH202  a string
        ),
        is_short=not missing and sum(map(os.path.getsize, model.files)) < model.facts.weights_bytes,
        is_record_damaged=recorded is None,
        get_again=_how_to_get_again(model, missing),
    )


def _recorded(model_id: str) -> Manifest | None:
    """None where it is damaged: `manifest.read` would put it aside, and nothing is to be changed here."""
    try:
        return manifest.parsed(json.loads(manifest.file_for(model_id).read_bytes()))
    except FileNotFoundError:
        return {}
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


def _how_to_get_again(model: Model, missing: Sequence[str]) -> str:
    if not model.source.startswith("hf:"):
        return ""
    repository = model.source.removeprefix("hf:").partition("@")[0]
    link = cache_link(missing[0]) if missing and model.facts.format is Format.GGUF else None
    return f"mmd pull {quote(repository + (f':{link.file}' if link else ''))}"


def check_model_files(models: Sequence[ModelFiles]) -> Iterator[Diagnosis]:
    wrong = [diagnosis for one in models if (diagnosis := _check_files(one))]
    yield from wrong
    if not models:
        yield ok("none is registered yet")
    elif not wrong:
        yield ok(f"{len(models)} registered, with all their files" if len(models) > 1 else "1 registered, all there")


def _check_files(one: ModelFiles) -> Diagnosis | None:
    if one.missing:
        back = f"{one.get_again}   # gets it again; or without it: mmd remove {one.model}"
        hint = back if one.get_again else f"mmd remove {one.model}   # or put it back where it was"
        return failed(f"{one.model}: gone: {_some(one.missing)}", hint)
    if one.unreadable:
        return failed(
            f"{one.model}: cannot be read: {_some(one.unreadable)}",
            f"namei -l {quote(one.unreadable[0])}   # whose it is",
        )
    if one.changed:
        return failed(
            f"{one.model}: of another size than when it was registered: {_some(one.changed)}",
            f"mmd verify {one.model}   # what it should be, and how to mend it",
        )
    if one.is_short:
        return failed(
            f"{one.model}: its files are shorter than the weights in them",
            f"{one.get_again or f'mmd verify {one.model}'}   # they were cut off: get them again",
        )
    if one.is_record_damaged:
        return warning(
            f"{one.model}: the record of its sizes and hashes is damaged",
            f"mmd verify {one.model}   # keeps it aside, and makes a new one",
        )
    return None


def _some(files: Sequence[str]) -> str:
    return files[0] + (f" and {len(files) - 1} more" if len(files) > 1 else "")


# -- engines


def check_served(models: Sequence[Model], engines: Sequence[EngineStatus], settings: Settings) -> Iterator[Diagnosis]:
    """Of each model whether the engine that its format or mmd.toml asks for works here."""
    working = {engine.name: engine.formats for engine in engines if engine.version is not None}
    if not working:
        return  # which the check of the engines has said
    of_format: dict[Format, list[str]] = {}
    for model in models:
        asked = settings.model(model.id).engine
        if asked is not None and asked not in working:
            yield failed(
                f"{model.id}: mmd.toml wants {asked} for it, which is not here",
                f"mmd engine list   # which are; mmd.toml: {config_file()}",
            )
        elif asked is None and not any(model.facts.format in formats for formats in working.values()):
            of_format.setdefault(model.facts.format, []).append(model.id)
    for form, ids in of_format.items():
        engine = _ENGINE_OF[form]
        yield failed(f"no engine here serves {_names(ids)}: {form} needs {engine}", f"mmd engine install {engine}")


def _names(ids: Sequence[str]) -> str:
    return ", ".join(ids[:_NAMED]) + (f" and {len(ids) - _NAMED} more" if len(ids) > _NAMED else "")


def check_tables(settings: Settings, registered: Iterable[str], startups: Mapping[str, Startup]) -> Iterator[Diagnosis]:
    """Of each [models.ID] in mmd.toml whether there is such a model."""
    for model_id in sorted(set(settings.models) - set(registered)):
        if startups.get(model_id, Startup.DISABLED) is not Startup.DISABLED:
            yield failed(
                f"{model_id} is to be loaded at startup, and is not registered",
                f"mmd startup {quote(model_id)} disabled   # or register it: mmd add PATH --id {quote(model_id)}",
            )
        else:
            yield warning(
                f"mmd.toml has a table for {model_id}, which is not registered", f"${{EDITOR:-nano}} {config_file()}"
            )
