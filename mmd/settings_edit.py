"""Edit mmd.toml, the user's file: keep the comments, the order, and a symlink into a dotfiles folder."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmd.atomic import write_atomically
from mmd.errors import SettingsNotEdited, StorageFailed
from mmd.paths import config_file
from mmd.settings import ModelTable, Settings, read_settings

Key = tuple[str, ...]  # ("boot", KEY), ("models", ID, KEY) or ("setups", NAME, KEY)
Value = str | bool | Sequence[str]


def set_for_models(key: str, values: Mapping[str, str], path: Path | None = None) -> None:
    """Set `key` in the tables of these models, [models.ID]. Raises what `edit_settings` raises."""
    edit_settings({("models", model_id, key): value for model_id, value in values.items()}, path)


def edit_settings(values: Mapping[Key, Value], path: Path | None = None) -> None:
    """Set these keys; the tables that they need are added.

    A value already in effect is not written, not even a default. Nothing is removed, since comments would go too.
    Raise WrongUsage if the file is damaged, StorageFailed if it cannot be written; the file is unchanged then.
    """
    file = path or config_file()
    settings = read_settings(file)  # refuses a damaged file with the message that every other verb has
    changes = {key: value for key, value in values.items() if _in_effect(settings, key) != _frozen(value)}
    if not changes:
        return
    key, value = next(iter(changes.items()))
    hint = f"[{_table_name(key)}] {key[-1]} = {_toml(value)}"
    _edit(file, lambda text: _with_values(text, changes), lambda document: _set_all(document, changes), hint)


def remove_setup(name: str, path: Path | None = None) -> None:
    """Remove the table [setups.NAME]; comments after its last key stay. Raises as `edit_settings`, and
    SettingsNotEdited if the setup is written in another way.
    """

    def remove(document: dict[str, Any]) -> None:
        del document["setups"][name]
        if not document["setups"]:
            del document["setups"]

    file = path or config_file()
    _edit(file, lambda text: _without_table(text, name), remove, f"remove [{_table_name(('setups', name, ''))}]")


def _edit(file: Path, change: Callable[[str], str], expect: Callable[[dict[str, Any]], None], by_hand: str) -> None:
    """Write the changed text if it parses to what `expect` makes of the old document.

    TOML has many ways to write a table, and neither tomlkit nor `_without_table` handles all.
    """
    before = file.read_bytes().decode() if file.exists() else ""  # keep its line ends
    after = change(before)
    expected = tomllib.loads(before)
    expect(expected)
    try:
        is_right = tomllib.loads(after) == expected
    except tomllib.TOMLDecodeError:
        is_right = False
    if not is_right:
        raise SettingsNotEdited(
            f"mmd cannot edit {file} without changing other parts of it; the file is unchanged",
            hint=f"${{EDITOR:-nano}} {file}   # {by_hand}",
        )
    _write(file, after)


def _in_effect(settings: Settings, key: Key) -> Any:
    table: Any = getattr(settings, key[0])
    if len(key) > 2:
        table = table.get(key[1], ModelTable() if key[0] == "models" else None)
    return getattr(table, key[-1], None)


def _frozen(value: Value) -> Value:
    return value if isinstance(value, str | bool) else tuple(value)


# -- set


def _with_values(text: str, changes: Mapping[Key, Value]) -> str:
    for key, value in changes.items():
        text = _with_value(text, key, value if isinstance(value, str | bool) else list(value))
    return text


def _with_value(text: str, key: Key, value: Any) -> str:
    import tomlkit
    from tomlkit.items import InlineTable

    document = tomlkit.parse(text)
    *parents, table, name = key
    holder: Any = document.get(parents[0], {}) if parents else document
    if table in holder:
        holder[table][name] = value
    elif isinstance(holder, InlineTable):
        holder[table] = tomlkit.inline_table().append(name, value)
    else:
        # Not inserted by tomlkit: next to dotted keys it nests a new table inside another one.
        return _with_gap(text) + tomlkit.dumps(_nested(key, value))
    return tomlkit.dumps(document)


def _with_gap(text: str) -> str:
    """Return the text with an empty line at its end, so that a table can follow."""
    return f"{text}\n\n" if text and not text.endswith("\n") else f"{text}\n" if text else ""


def _nested(key: Key, value: Any) -> dict[str, Any]:
    first, *rest = key
    return {first: _nested(tuple(rest), value) if rest else value}


def _set_all(document: dict[str, Any], changes: Mapping[Key, Value]) -> None:
    for key, value in changes.items():
        table = document
        for name in key[:-1]:
            table = table.setdefault(name, {})
        table[key[-1]] = value if isinstance(value, str | bool) else list(value)


# -- remove


def _without_table(text: str, name: str) -> str:
    """Return the text without the lines from the table's header to its last key."""
    header = re.compile(rf"""\s*\[\s*setups\s*\.\s*("{re.escape(name)}"|'{re.escape(name)}'|{re.escape(name)})\s*\]""")
    lines = text.splitlines(keepends=True)
    first = next((number for number, line in enumerate(lines) if header.match(line)), None)
    if first is None:
        return text
    rest = lines[first + 1 :]
    count = next((number for number, line in enumerate(rest) if line.lstrip().startswith("[")), len(rest))
    while count and (not rest[count - 1].strip() or rest[count - 1].lstrip().startswith("#")):
        count -= 1
    kept = lines[:first], rest[count:]
    if not kept[0] or not kept[0][-1].strip():
        while kept[1] and not kept[1][0].strip():  # one gap, not two
            kept[1].pop(0)
    return "".join(kept[0] + kept[1])


# -- text


def _table_name(key: Key) -> str:
    return ".".join(key[:1] + tuple(f'"{name}"' for name in key[1:-1]))


def _toml(value: Value) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value}"' if isinstance(value, str) else f"[{', '.join(map(_toml, value))}]"


def _write(file: Path, text: str) -> None:
    real = file.resolve()  # keep a symlink
    try:
        mode = real.stat().st_mode & 0o777 if real.exists() else 0o600
        write_atomically(real, text.encode(), mode=mode)
    except OSError as error:
        raise StorageFailed(
            f"{file} cannot be written: {error.strerror}", hint=f"ls -lL {file}; df -h {file}"
        ) from error
