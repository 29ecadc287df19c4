"""The user's settings: one table of what mmd.toml may say, and its reader."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmd.errors import StorageFailed, WrongUsage
from mmd.paths import config_file

_HOST = re.compile(r"[A-Za-z0-9.-]+|[0-9A-Fa-f:.]+")
_ORIGIN = re.compile(r"https?://([A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(:\d{1,5})?/?")


@dataclass(frozen=True, slots=True)
class Setting:
    """One key of mmd.toml: what it must be, what holds without it, and what it is for."""

    key: str  # "table.name"
    check: Callable[[Any], bool]
    kind: str  # what `check` wants, for the error
    default: Any
    help: str


def is_listen(value: Any) -> bool:
    """Whether a value is HOST:PORT."""
    if not isinstance(value, str):
        return False
    host, colon, port = value.rpartition(":")
    return bool(host and colon and port.isdecimal() and int(port) < 65536)


def _is_listen_or_off(value: Any) -> bool:
    return value == "" or is_listen(value)


def _is_hosts(value: Any) -> bool:
    """Names and addresses as they stand in a URL, without its port."""
    return isinstance(value, list) and all(isinstance(name, str) and _HOST.fullmatch(name) for name in value)


def _is_origins(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) and _ORIGIN.fullmatch(one) for one in value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_absolute(value: Any) -> bool:
    return isinstance(value, str) and value.startswith("/")


def _is_aliases(value: Any) -> bool:
    """Whether a value is a list of names: they may stand on a command line, where a hyphen begins an option."""
    return isinstance(value, list) and all(
        isinstance(name, str) and name.isprintable() and name == name.strip() and name[:1] not in ("", "-")
        for name in value
    )


_SECONDS_OR_NEVER = "a number of seconds, or 0 for never"

SETTINGS = (
    Setting("gateway.listen", is_listen, '"HOST:PORT"', "127.0.0.1:8000", "where `mmd gateway` listens"),
    Setting(
        "gateway.embedding_listen",
        _is_listen_or_off,
        '"HOST:PORT", or "" for none',
        "127.0.0.1:8085",
        "where a request that names no model means the embedding model",
    ),
    Setting(
        "gateway.hosts",
        _is_hosts,
        'a list of host names, like ["llm.example.org"]',
        (),
        "names that the gateway is called by, beside those of this machine: a proxy's in front of it",
    ),
    Setting(
        "gateway.origins",
        _is_origins,
        'a list of origins, like ["https://chat.example.org"]',
        (),
        "sites whose pages may use the gateway, beside pages of this machine",
    ),
    Setting(
        "gateway.drain_seconds",
        _is_number,
        "a number of seconds",
        60,
        "how long running answers of the old model may hold up a swap",
    ),
    Setting(
        "gateway.max_wait_seconds",
        _is_number,
        "a number of seconds",
        60,
        "requests for the resident model go ahead only while all who wait can still be served within this; it does not "
        "count how long running answers take to end",
    ),
    Setting(
        "gateway.min_residency_seconds",
        _is_number,
        "a number of seconds",
        2,
        "how long at least a model that is in use stays while others are asked for",
    ),
    Setting(
        "gateway.idle_sleep_seconds",
        _is_number,
        _SECONDS_OR_NEVER,
        0,  # on a GPU that nobody else wants it costs nothing to stay, and whoever asks next need not wait
        "after how long a model that nobody uses is put to sleep, or stopped if its engine cannot sleep",
    ),
    Setting(
        "gateway.idle_stop_seconds",
        _is_number,
        _SECONDS_OR_NEVER,
        0,  # where others need the RAM, sleepers give it back anyway: see control.pressure
        "after how long a model that sleeps is stopped",
    ),
    Setting(
        "gateway.suspend",
        lambda value: value in ("release", "leave"),
        '"release" or "leave"',
        "release",
        "what becomes of a model on the GPU when the machine suspends: it is put away and brought back, or left there, "
        "for a driver that saves its memory (NVreg_PreserveVideoMemoryAllocations=1)",
    ),
    Setting(
        "engines.llama-server",
        _is_absolute,
        "an absolute path",
        None,
        "the llama-server to use instead of the one on PATH",
    ),
    Setting(
        "engines.vllm",
        _is_absolute,
        "an absolute path",
        None,
        "the vllm to use, or the virtual environment it is in, instead of the one on PATH",
    ),
)

# What a [models.ID] table may say.
MODEL_SETTINGS = (
    Setting("engine", lambda value: isinstance(value, str), "an engine's name", None, "the engine to use for it"),
    Setting(
        "context",
        lambda value: _is_number(value) and value > 0,
        "a number of tokens",
        None,
        "its context; without it the engine takes what fits",
    ),
    Setting(
        "ready_seconds",
        _is_number,
        "a number of seconds",
        None,
        "how long it may load before it counts as failed",
    ),
    Setting(
        "arguments",
        lambda value: isinstance(value, list) and all(isinstance(word, str) for word in value),
        "a list of strings",
        (),
        "more arguments for its engine, at the end of the command line",
    ),
    Setting("aliases", _is_aliases, "a list of names", (), "other names that clients may call it by"),
    Setting("idle_sleep_seconds", _is_number, _SECONDS_OR_NEVER, None, "its own gateway.idle_sleep_seconds"),
    Setting("idle_stop_seconds", _is_number, _SECONDS_OR_NEVER, None, "its own gateway.idle_stop_seconds"),
    Setting(
        "pinned",
        lambda value: isinstance(value, bool),
        "true or false",
        False,
        "whether it stays: not idleness, memory pressure or a request for another ends that, only who asks for it does",
    ),
    Setting(
        "startup",
        lambda value: value in ("disabled", "sleep", "active"),
        '"disabled", "sleep" or "active"',
        "disabled",
        "what becomes of it when the machine comes up: loaded and put to sleep, or the default model",
    ),
)


@dataclass(frozen=True, slots=True)
class Settings:
    """What holds: the defaults, and over them what mmd.toml says."""

    values: Mapping[str, Any]
    models: Mapping[str, Mapping[str, Any]]

    def __getitem__(self, key: str) -> Any:
        return self.values[key]

    def model(self, model_id: str) -> Mapping[str, Any]:
        """The [models.ID] table with its defaults."""
        return {setting.key: setting.default for setting in MODEL_SETTINGS} | dict(self.models.get(model_id, {}))


def read_settings(path: Path | None = None) -> Settings:
    """Read mmd.toml, which need not exist. Raises WrongUsage, naming the line or the key."""
    file = path or config_file()
    try:
        document = tomllib.loads(file.read_text("utf-8"))
    except FileNotFoundError:
        document = {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise WrongUsage(f"{file} is not TOML: {error}", hint=f"${{EDITOR:-nano}} {file}") from error
    except OSError as error:
        raise StorageFailed(f"{file} cannot be read: {error.strerror}", hint=f"ls -l {file}") from error
    models = document.pop("models", {})
    if not isinstance(models, dict) or not all(isinstance(table, dict) for table in models.values()):
        raise WrongUsage(f"{file}: models must be tables, [models.ID]", hint=f"${{EDITOR:-nano}} {file}")
    for model_id, table in models.items():
        known = {setting.key for setting in MODEL_SETTINGS}
        if nested := next((key for key, value in table.items() if isinstance(value, dict) and key not in known), None):
            raise WrongUsage(
                f'{file}: an id with a dot in it must be quoted: [models."{model_id}.{nested}"]',
                hint=f"${{EDITOR:-nano}} {file}",
            )
        _checked(table, MODEL_SETTINGS, f"models.{model_id}.", file)
    _refuse_shared_aliases(models, file)
    given = _checked(_flat(document), SETTINGS, "", file)
    return Settings({setting.key: given.get(setting.key, setting.default) for setting in SETTINGS}, models)


def _checked(given: Mapping[str, Any], table: tuple[Setting, ...], prefix: str, file: Path) -> Mapping[str, Any]:
    known = {setting.key: setting for setting in table}
    for key, value in given.items():
        if key not in known:
            raise WrongUsage(
                f"{file}: there is no setting {prefix}{key}; there are {', '.join(known)}",
                hint=f"${{EDITOR:-nano}} {file}",
            )
        if not known[key].check(value):
            raise WrongUsage(
                f"{file}: {prefix}{key} must be {known[key].kind}, not {value!r}", hint=f"${{EDITOR:-nano}} {file}"
            )
    return given


def _refuse_shared_aliases(models: Mapping[str, Mapping[str, Any]], file: Path) -> None:
    had_by: dict[str, str] = {}
    for model_id, table in models.items():
        for alias in table.get("aliases", ()):
            if had_by.setdefault(alias, model_id) != model_id:
                raise WrongUsage(
                    f"{file}: {alias!r} is an alias of both {had_by[alias]} and {model_id}",
                    hint=f"${{EDITOR:-nano}} {file}",
                )


def _flat(document: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in document.items():
        if isinstance(value, dict):
            flat |= {f"{name}.{key}": inner for key, inner in value.items()}
        else:
            flat[name] = value
    return flat
