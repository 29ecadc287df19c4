"""Edit mmd.toml, the user's file: keep the comments, the order, and a symlink into a dotfiles folder."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path

from mmd.atomic import write_atomically
from mmd.errors import SettingsNotEdited, StorageFailed
from mmd.paths import config_file
from mmd.settings import read_settings


def set_for_models(key: str, values: Mapping[str, str], path: Path | None = None) -> None:
    """Set `key` in the tables of these models, [models.ID].

    A value already in effect is not written, not even a default. Nothing is removed, since comments would go too.
    Raise WrongUsage if the file is damaged, StorageFailed if it cannot be written; the file is unchanged then.
    """
    file = path or config_file()
    settings = read_settings(file)  # refuses a damaged file with the message that every other verb has
    changes = {name: value for name, value in values.items() if getattr(settings.model(name), key) != value}
    if not changes:
        return
    before = file.read_bytes().decode() if file.exists() else ""  # keep its line ends
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
        # Not inserted by tomlkit: next to dotted keys it nests a new table inside another one.
        return _with_gap(text) + tomlkit.dumps({"models": {model_id: {key: value}}})
    return tomlkit.dumps(document)


def _with_gap(text: str) -> str:
    """Return the text with an empty line at its end, so that a table can follow."""
    return f"{text}\n\n" if text and not text.endswith("\n") else f"{text}\n" if text else ""


def _require_nothing_else_changed(file: Path, before: str, after: str, key: str, changes: Mapping[str, str]) -> None:
    """Parse the result before it is written: TOML has many ways to write a table, and tomlkit does not handle all."""
    expected = tomllib.loads(before)
    for model_id, value in changes.items():
        expected.setdefault("models", {}).setdefault(model_id, {})[key] = value
    try:
        is_right = tomllib.loads(after) == expected
    except tomllib.TOMLDecodeError:
        is_right = False
    if not is_right:
        model_id, value = next(iter(changes.items()))
        raise SettingsNotEdited(
            f"mmd cannot edit {file} without changing other parts of it; the file is unchanged",
            hint=f'${{EDITOR:-nano}} {file}   # [models."{model_id}"] {key} = "{value}"',
        )


def _write(file: Path, text: str) -> None:
    real = file.resolve()  # keep a symlink
    try:
        mode = real.stat().st_mode & 0o777 if real.exists() else 0o600
        write_atomically(real, text.encode(), mode=mode)
    except OSError as error:
        raise StorageFailed(
            f"{file} cannot be written: {error.strerror}", hint=f"ls -lL {file}; df -h {file}"
        ) from error
