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


def make_private(folder: Path) -> None:
    """Make a folder that nobody else may look into, and what is missing above it; Python's mkdir() makes the parents
    for all to see. Where the folder or one above it is mmd's own and wider, it is tightened. Raises OSError.
    """
    missing = [one for one in folder.parents if not one.exists()]
    for one in (*reversed(missing), folder):
        one.mkdir(mode=0o700, exist_ok=True)
    own = {data_dir(), config_dir(), cache_dir(), state_dir(), runtime_dir()}
    for one in (folder, *folder.parents):
        if own & {one, *one.parents}:
            _tighten(one)


def _tighten(folder: Path) -> None:
    status = folder.stat()
    # One that belongs to somebody else, a configuration laid down by root for instance, is theirs to change.
    if status.st_mode & 0o077 and status.st_uid == os.geteuid():
        folder.chmod(status.st_mode & 0o700)


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


def manifests_dir() -> Path:
    """What the files of each model are to be: a file for each."""
    return data_dir() / "manifests"


def models_dir() -> Path:
    """Models that mmd put on this machine itself, out of an archive: a folder for each."""
    return data_dir() / "models"


def registry_file() -> Path:
    return data_dir() / "models.json"


def config_file() -> Path:
    return config_dir() / "mmd.toml"


def keys_file() -> Path:
    """The hashes of the gateway's API keys."""
    return config_dir() / "keys.toml"


def tunnel_file(model_id: str) -> Path:
    """The name and the token of the tunnel that a model keeps."""
    return config_dir() / "tunnels" / f"{model_id}.toml"


def tunnels_dir() -> Path:
    """A folder for each tunnel that is open, made by its unit, with the file `url`."""
    return user_runtime_dir() / "mmd-tunnels"


def gateway_socket() -> Path:
    """Where the gateway listens for its own user. Beside mmd's folder and not in it: a model may have any id."""
    return user_runtime_dir() / "mmd-gateway.sock"


def engine_socket(model_id: str) -> Path:
    """The Unix socket an engine listens on; a socket's path may have 107 bytes, so ids are short."""
    return runtime_dir() / model_id / "api.sock"
