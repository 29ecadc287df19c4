"""Changes to mmd.toml, which is the user's: their comments, their order and their link to a folder of dotfiles stay."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmd.errors import StorageFailed
from mmd.paths import config_file
from mmd.registry.atomic import write_atomically
from mmd.settings import read_settings


def set_for_models(key: str, values: Mapping[str, Any], path: Path | None = None) -> None:
    """Set `key` in the [models.ID] tables of some models; None takes it out, and a table that is empty then with it.

    Raises WrongUsage where the file is damaged, and leaves it as it is; StorageFailed where it cannot be written.
    """
    import tomlkit

    file = path or config_file()
    read_settings(file)  # refuses a damaged file, in the words that every other verb has for it
    document = tomlkit.parse(file.read_text("utf-8") if file.exists() else "")
    models = document.setdefault("models", tomlkit.table(is_super_table=True))
    for model_id, value in values.items():
        if value is not None:
            models.setdefault(model_id, tomlkit.table())[key] = value
        elif key in models.get(model_id, {}):
            del models[model_id][key]
            if not models[model_id]:
                del models[model_id]
    if not models:
        del document["models"]
    _write(file, tomlkit.dumps(document))


def _write(file: Path, text: str) -> None:
    real = file.resolve()  # not the link itself
    try:
        mode = real.stat().st_mode if real.exists() else None
        write_atomically(real, text.encode())
        if mode is not None:
            os.chmod(real, mode & 0o777)  # noqa: PTH101
    except OSError as error:
        raise StorageFailed(
            f"{file} cannot be written: {error.strerror}", hint=f"ls -lL {file}; df -h {file}"
        ) from error
