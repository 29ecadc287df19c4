"""Changes to mmd.toml, which is the user's: their comments, their order and their link to a folder of dotfiles stay."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path

from mmd.atomic import write_atomically
from mmd.errors import MmdError, StorageFailed
from mmd.paths import config_file
from mmd.settings import MODEL_SETTINGS, read_settings


def set_for_models(key: str, values: Mapping[str, str], path: Path | None = None) -> None:
    """Set `key` in the [models.ID] tables of some models. Nothing is taken out, for what a comment is about would go
    with it, and what is not said and is the default stays unsaid.

    Raises WrongUsage where the file is damaged, and leaves it as it is; StorageFailed where it cannot be written.
    """
    file = path or config_file()
    tables = read_settings(file).models  # refuses a damaged file, in the words that every other verb has for it
    (default,) = (setting.default for setting in MODEL_SETTINGS if setting.key == key)
    changes = {name: value for name, value in values.items() if tables.get(name, {}).get(key, default) != value}
    if not changes:
        return
    before = file.read_bytes().decode() if file.exists() else ""  # with the line ends that it has
    after = before
    for model_id, value in changes.items():
        after = _changed(after, model_id, key, value)
    _require_nothing_else_changed(file, before, after, key, changes)
    _write(file, after)


def _changed(text: str, model_id: str, key: str, value: str) -> str:
    import tomlkit
    from tomlkit.items import InlineTable

    document = tomlkit.parse(text)
    models = document.get("models", {})
    if model_id in models:
        models[model_id][key] = value
    elif isinstance(models, InlineTable):
        models[model_id] = tomlkit.inline_table().append(key, value)
    else:
        # Not by tomlkit: beside keys with dots it puts a new table where it belongs to another one.
        return _with_gap(text) + tomlkit.dumps({"models": {model_id: {key: value}}})
    return tomlkit.dumps(document)


def _with_gap(text: str) -> str:
    """The text with an empty line at its end, for what is to come after it."""
    return f"{text}\n\n" if text and not text.endswith("\n") else f"{text}\n" if text else ""


def _require_nothing_else_changed(file: Path, before: str, after: str, key: str, changes: Mapping[str, str]) -> None:
    """TOML has many ways to write a table, and the file is the user's: what is written has been read back."""
    expected = tomllib.loads(before)
    for model_id, value in changes.items():
        expected.setdefault("models", {}).setdefault(model_id, {})[key] = value
    try:
        is_right = tomllib.loads(after) == expected
    except tomllib.TOMLDecodeError:
        is_right = False
    if not is_right:
        model_id, value = next(iter(changes.items()))
        raise MmdError(
            f"{file} is written in a way that mmd cannot change, and is left as it is",
            hint=f'${{EDITOR:-nano}} {file}   # [models."{model_id}"] {key} = "{value}"',
        )


def _write(file: Path, text: str) -> None:
    real = file.resolve()  # not the link itself
    try:
        mode = real.stat().st_mode & 0o777 if real.exists() else 0o600
        write_atomically(real, text.encode(), mode=mode)
    except OSError as error:
        raise StorageFailed(
            f"{file} cannot be written: {error.strerror}", hint=f"ls -lL {file}; df -h {file}"
        ) from error
