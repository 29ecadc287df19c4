"""Check the registered models: whether their files are unchanged and whether an installed engine serves them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from shlex import quote

from mmd.codec import BadRecord
from mmd.control.doctor.diagnosis import Diagnosis, failed, ok, warning
from mmd.control.install.engines import EngineStatus
from mmd.control.models.setups import setup_named
from mmd.engines import for_format
from mmd.errors import MmdError
from mmd.paths import config_file
from mmd.plan.boot import Startup
from mmd.registry import manifest
from mmd.registry.cache_link import cache_link
from mmd.registry.manifest import Manifest
from mmd.registry.record import Format, Model
from mmd.registry.store import missing_files
from mmd.settings import Settings

_NAMED = 3


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """Problems of a model's files, found without reading their content."""

    model: str
    missing: tuple[str, ...] = ()
    unreadable: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()  # size differs from the size at registration
    is_short: bool = False  # the files are smaller than the weights in their headers
    is_record_damaged: bool = False  # the record of sizes and hashes
    get_again: str = ""  # the command for a model from the hub; else ""


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
    """Return None if the manifest is damaged. (`manifest.read` would move it aside; the doctor changes nothing.)"""
    try:
        return manifest.parse(manifest.file_for(model_id).read_bytes())
    except FileNotFoundError:
        return {}
    except BadRecord:
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
        yield ok("no model is registered")
    elif not wrong:
        yield ok(
            f"{len(models)} registered, all files present" if len(models) > 1 else "1 registered, all files present"
        )


def _check_files(one: ModelFiles) -> Diagnosis | None:
    if one.missing:
        back = f"{one.get_again}   # downloads it again; or forget it: mmd remove {one.model}"
        hint = back if one.get_again else f"mmd remove {one.model}   # or put the file back"
        return failed(f"{one.model}: missing: {_some(one.missing)}", hint)
    if one.unreadable:
        return failed(
            f"{one.model}: not readable: {_some(one.unreadable)}",
            f"namei -l {quote(one.unreadable[0])}   # shows the owners",
        )
    if one.changed:
        return failed(
            f"{one.model}: size changed since registration: {_some(one.changed)}",
            f"mmd verify {one.model}   # shows the expected size and how to repair it",
        )
    if one.is_short:
        return failed(
            f"{one.model}: its files are shorter than their headers claim",
            f"{one.get_again or f'mmd verify {one.model}'}   # truncated files: download them again",
        )
    if one.is_record_damaged:
        return warning(
            f"{one.model}: the record of its sizes and hashes is damaged",
            f"mmd verify {one.model}   # moves it aside and makes a new one",
        )
    return None


def _some(files: Sequence[str]) -> str:
    return files[0] + (f" and {len(files) - 1} more" if len(files) > 1 else "")


# -- engines


def check_served(models: Sequence[Model], engines: Sequence[EngineStatus], settings: Settings) -> Iterator[Diagnosis]:
    """Check, for each model, that the engine named in mmd.toml or required by its format works here."""
    working = {engine.name: engine.formats for engine in engines if engine.version is not None}
    if not working:
        return  # reported by the check of the engines
    of_format: dict[Format, list[str]] = {}
    for model in models:
        asked = settings.model(model.id).engine
        if asked is not None and asked not in working:
            yield failed(
                f"{model.id}: mmd.toml names the engine {asked}, which is not installed",
                f"mmd engine list   # lists the installed ones; settings: {config_file()}",
            )
        elif asked is None and not any(model.facts.format in formats for formats in working.values()):
            of_format.setdefault(model.facts.format, []).append(model.id)
    for form, ids in of_format.items():
        engine = for_format(form)
        message = f"no installed engine serves {_names(ids)}: {form} needs {engine.family}"
        yield failed(message, engine.how_to_install())


def _names(ids: Sequence[str]) -> str:
    return ", ".join(ids[:_NAMED]) + (f" and {len(ids) - _NAMED} more" if len(ids) > _NAMED else "")


def check_tables(settings: Settings, registered: Iterable[str], startups: Mapping[str, Startup]) -> Iterator[Diagnosis]:
    """Check that each [models.ID] in mmd.toml names a registered model."""
    for model_id in sorted(set(settings.models) - set(registered)):
        if startups.get(model_id, Startup.DISABLED) is not Startup.DISABLED:
            yield failed(
                f"{model_id} has a startup mode, but is not registered",
                f"mmd startup {quote(model_id)} disabled   # or register it: mmd add PATH --id {quote(model_id)}",
            )
        else:
            yield warning(
                f"mmd.toml has a table for {model_id}, which is not registered", f"${{EDITOR:-nano}} {config_file()}"
            )


def check_setups(settings: Settings, models: Mapping[str, Model]) -> Iterator[Diagnosis]:
    """Check that each setup can be activated, as far as its names go."""
    for name, table in settings.setups.items():
        try:
            setup_named(name, models, settings)
        except MmdError as error:
            level = failed if table.startup == "active" else warning
            yield level(error.message, error.hint)
