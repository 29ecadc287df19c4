"""Where things are: the XDG base directories, read from the environment at every call."""

from __future__ import annotations

import os
from pathlib import Path


def _base(variable: str, fallback: str) -> Path:
    # The XDG specification: a relative path in one of these variables is to be ignored.
    value = os.environ.get(variable, "")
    return Path(value) if value.startswith("/") else Path.home() / fallback


def data_dir() -> Path:
    return _base("XDG_DATA_HOME", ".local/share") / "mmd"


def config_dir() -> Path:
    return _base("XDG_CONFIG_HOME", ".config") / "mmd"


def cache_dir() -> Path:
    return _base("XDG_CACHE_HOME", ".cache") / "mmd"


def state_dir() -> Path:
    """What may be lost, and is worth keeping over a reboot: what happened, and what was learned."""
    return _base("XDG_STATE_HOME", ".local/state") / "mmd"


def user_unit_dir() -> Path:
    """Where units that a user installs for themselves go."""
    return _base("XDG_CONFIG_HOME", ".config") / "systemd" / "user"


def user_runtime_dir() -> Path:
    """`$XDG_RUNTIME_DIR`, or the place logind would have made it."""
    value = os.environ.get("XDG_RUNTIME_DIR", "")
    return Path(value) if value.startswith("/") else Path(f"/run/user/{os.getuid()}")


def runtime_dir() -> Path:
    """mmd's own runtime folder: the engines' sockets and the planner's lock."""
    return user_runtime_dir() / "mmd"


def engines_dir() -> Path:
    """The engines that mmd installed itself, a folder for each."""
    return data_dir() / "engines"


def registry_file() -> Path:
    return data_dir() / "models.toml"


def config_file() -> Path:
    return config_dir() / "mmd.toml"


def keys_file() -> Path:
    """The hashes of the gateway's API keys."""
    return config_dir() / "keys.toml"


def gateway_socket() -> Path:
    """Where the gateway listens for its own user. Beside mmd's folder and not in it: a model may have any id."""
    return user_runtime_dir() / "mmd-gateway.sock"


def engine_socket(model_id: str) -> Path:
    """The Unix socket an engine listens on; a socket's path may have 107 bytes, so ids are short."""
    return runtime_dir() / model_id / "api.sock"
