"""The paths of mmd's files and folders, below the XDG base directories; each call reads the environment."""

from __future__ import annotations

import os
from pathlib import Path


def _base(variable: str, fallback: str) -> Path:
    # The XDG specification: a relative path in one of these variables is ignored.
    value = os.environ.get(variable, "")
    return Path(value) if value.startswith("/") else Path.home() / fallback


def data_dir() -> Path:
    return _base("XDG_DATA_HOME", ".local/share") / "mmd"


def config_dir() -> Path:
    return _base("XDG_CONFIG_HOME", ".config") / "mmd"


def cache_dir() -> Path:
    return _base("XDG_CACHE_HOME", ".cache") / "mmd"


def state_dir() -> Path:
    """State that survives reboots but can be recreated: events, and measurements of starts."""
    return _base("XDG_STATE_HOME", ".local/state") / "mmd"


def make_private(folder: Path) -> None:
    """Make a folder that only its owner can read, with its missing parents, which Python's mkdir() makes public.

    Existing folders of mmd's own lose the permissions of other users. Raises OSError.
    """
    missing = [one for one in folder.parents if not one.exists()]
    for one in (*reversed(missing), folder):
        one.mkdir(mode=0o700, exist_ok=True)
    own = {data_dir(), config_dir(), cache_dir(), state_dir(), runtime_dir()}
    for one in (folder, *folder.parents):
        if own & {one, *one.parents}:
            _restrict(one)


def _restrict(folder: Path) -> None:
    status = folder.stat()
    # A folder of another user, such as a configuration made by root, is theirs to change.
    if status.st_mode & 0o077 and status.st_uid == os.geteuid():
        folder.chmod(status.st_mode & 0o700)


def user_unit_dir() -> Path:
    """The folder for units that a user installs."""
    return _base("XDG_CONFIG_HOME", ".config") / "systemd" / "user"


def user_runtime_dir() -> Path:
    """`$XDG_RUNTIME_DIR`, or the path that logind uses for it."""
    value = os.environ.get("XDG_RUNTIME_DIR", "")
    return Path(value) if value.startswith("/") else Path(f"/run/user/{os.getuid()}")


def runtime_dir() -> Path:
    """mmd's own runtime folder: the engines' sockets and the planner's lock."""
    return user_runtime_dir() / "mmd"


def engines_dir() -> Path:
    """The engines that mmd has installed, a folder for each."""
    return data_dir() / "engines"


def manifests_dir() -> Path:
    """The expected sizes and hashes of the models' files, a file for each model."""
    return data_dir() / "manifests"


def models_dir() -> Path:
    """Models restored from an archive, a folder for each."""
    return data_dir() / "models"


def registry_file() -> Path:
    return data_dir() / "models.json"


def config_file() -> Path:
    return config_dir() / "mmd.toml"


def keys_file() -> Path:
    """The hashes of the gateway's API keys."""
    return config_dir() / "keys.toml"


def tunnel_file(model_id: str) -> Path:
    """The hostname and token of a model's named tunnel."""
    return config_dir() / "tunnels" / f"{model_id}.toml"


def tunnels_dir() -> Path:
    """A folder for each open tunnel, made by its unit, with the file `url`."""
    return user_runtime_dir() / "mmd-tunnels"


def gateway_socket() -> Path:
    """The gateway's Unix socket. It is beside mmd's folder, not in it, because a model may have any id."""
    return user_runtime_dir() / "mmd-gateway.sock"


# The folder that systemd keeps for a token while it is active is the id with this suffix, which no id contains.
TOKEN_SUFFIX = "~gpu"


def engine_socket(model_id: str) -> Path:
    """The Unix socket of an engine. A socket's path may have 107 bytes, so ids are short."""
    return runtime_dir() / model_id / "api.sock"
