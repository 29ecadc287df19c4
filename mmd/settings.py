"""The user's settings: the tables of mmd.toml as records, and their reader."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from mmd.errors import StorageFailed, WrongUsage
from mmd.paths import config_file

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

_Table = TypeVar("_Table", bound="DataclassInstance")

_HOST = r"[A-Za-z0-9.-]+|[0-9A-Fa-f:.]+"
_ORIGIN = r"https?://([A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(:\d{1,5})?/?"


@dataclass(frozen=True, slots=True)
class Setting:
    """One key of a table in mmd.toml."""

    key: str
    default: Any
    check: Callable[[Any], bool]  # of the value as TOML has it
    kind: str  # what `check` accepts, for the error message and the man page
    help: str


def is_listen(value: Any) -> bool:
    """Return True for HOST:PORT."""
    if not isinstance(value, str):
        return False
    host, colon, port = value.rpartition(":")
    return bool(host and colon and port.isdecimal() and int(port) < 65536)


def _is_listen_or_off(value: Any) -> bool:
    return value == "" or is_listen(value)


def _is_hosts(value: Any) -> bool:
    """Return True for a list of names and addresses as in a URL, without the port."""
    return isinstance(value, list) and all(isinstance(name, str) and re.fullmatch(_HOST, name) for name in value)


def _is_origins(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) and re.fullmatch(_ORIGIN, one) for one in value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_context(value: Any) -> bool:
    return _is_number(value) and value > 0


def _is_absolute(value: Any) -> bool:
    return isinstance(value, str) and value.startswith("/")


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_flag(value: Any) -> bool:
    return isinstance(value, bool)


def _is_words(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(word, str) for word in value)


def _is_aliases(value: Any) -> bool:
    """Return True for a list of names. A name may end up on a command line, so it must not start with a hyphen."""
    return isinstance(value, list) and all(
        isinstance(name, str) and name.isprintable() and name == name.strip() and name[:1] not in ("", "-")
        for name in value
    )


def _is_suspend(value: Any) -> bool:
    return value in ("release", "leave")


def _is_startup(value: Any) -> bool:
    return value in ("disabled", "sleep", "active")


def _setting(default: Any, check: Callable[[Any], bool], kind: str, help: str, *, key: str = "") -> Any:
    """Declare a field of a table. `key` is its name in mmd.toml if Python cannot spell it."""
    return field(default=default, metadata={"check": check, "kind": kind, "help": help, "key": key})


_ADDRESS = '"HOST:PORT"'
_SECONDS = "a number of seconds"
_SECONDS_OR_NEVER = "a number of seconds, or 0 for never"


@dataclass(frozen=True, slots=True)
class GatewayTable:
    """[gateway]"""

    listen: str = _setting("127.0.0.1:8000", is_listen, _ADDRESS, "address that the gateway listens on")
    embedding_listen: str = _setting(
        "127.0.0.1:8085",
        _is_listen_or_off,
        f'{_ADDRESS}, or "" for none',
        "address where a request that names no model goes to the embedding model",
    )
    hosts: tuple[str, ...] = _setting(
        (),
        _is_hosts,
        'a list of host names, like ["llm.example.org"]',
        "further names that clients reach the gateway by, such as the name of a reverse proxy",
    )
    origins: tuple[str, ...] = _setting(
        (),
        _is_origins,
        'a list of origins, like ["https://chat.example.org"]',
        "web sites whose pages may use the gateway, beside pages of this machine",
    )
    drain_seconds: int = _setting(
        60, _is_number, _SECONDS, "maximum time that a swap waits for running responses of the old model"
    )
    max_wait_seconds: int = _setting(
        60,
        _is_number,
        _SECONDS,
        "requests for the resident model are admitted first only while every waiting request can still be served "
        "within this time; the time that running responses need to finish is not counted",
    )
    min_residency_seconds: int = _setting(
        2, _is_number, _SECONDS, "minimum residency of a busy model while requests for other models wait"
    )
    # 0: on a GPU that no other program needs, a loaded model costs nothing and the next request does not wait.
    idle_sleep_seconds: int = _setting(
        0,
        _is_number,
        _SECONDS_OR_NEVER,
        "idle time after which a model is put to sleep, or stopped if its engine cannot sleep",
    )
    # 0: when RAM gets short, sleeping models give it back anyway; see control/lifecycle/memory_pressure.py.
    idle_stop_seconds: int = _setting(0, _is_number, _SECONDS_OR_NEVER, "time asleep after which a model is stopped")
    suspend: Literal["release", "leave"] = _setting(
        "release",
        _is_suspend,
        '"release" or "leave"',
        "what happens to the model on the GPU when the machine suspends: it is unloaded and restored after resume, or "
        "left there for a driver that saves GPU memory (NVreg_PreserveVideoMemoryAllocations=1)",
    )


@dataclass(frozen=True, slots=True)
class EnginesTable:
    """[engines]: the place of an engine's program, by the name of the engine."""

    llama_server: str | None = _setting(
        None, _is_absolute, "an absolute path", "the llama-server to use instead of the one on PATH", key="llama-server"
    )
    vllm: str | None = _setting(
        None,
        _is_absolute,
        "an absolute path",
        "the vllm to use instead of the one on PATH, or the virtual environment that contains it",
    )

    def place(self, engine: str) -> str | None:
        """Return the path set for an engine, None if mmd.toml sets none."""
        attribute = _attributes(EnginesTable).get(engine)
        place: str | None = getattr(self, attribute) if attribute else None
        return place


@dataclass(frozen=True, slots=True)
class ModelTable:
    """[models.ID]"""

    engine: str | None = _setting(None, _is_text, "an engine's name", "the engine that runs it")
    context: int | None = _setting(
        None, _is_context, "a number of tokens", "its context; if not set, the engine takes what fits"
    )
    ready_seconds: int | None = _setting(
        None, _is_number, _SECONDS, "maximum time for loading, after which the start counts as failed"
    )
    arguments: tuple[str, ...] = _setting(
        (), _is_words, "a list of strings", "further arguments for its engine, at the end of the command line"
    )
    aliases: tuple[str, ...] = _setting((), _is_aliases, "a list of names", "other names that clients may use for it")
    idle_sleep_seconds: int | None = _setting(
        None, _is_number, _SECONDS_OR_NEVER, "this model's own value of gateway.idle_sleep_seconds"
    )
    idle_stop_seconds: int | None = _setting(
        None, _is_number, _SECONDS_OR_NEVER, "this model's own value of gateway.idle_stop_seconds"
    )
    pinned: bool = _setting(
        False,
        _is_flag,
        "true or false",
        "keep it loaded: idleness, memory pressure and requests for other models never unload it, only an explicit "
        "command does",
    )
    startup: Literal["disabled", "sleep", "active"] = _setting(
        "disabled",
        _is_startup,
        '"disabled", "sleep" or "active"',
        "what happens to it when the machine boots: it is loaded and put to sleep, or it is the default model",
    )


_TABLES: Mapping[str, type[DataclassInstance]] = {"gateway": GatewayTable, "engines": EnginesTable}
_NO_TABLE = ModelTable()


@dataclass(frozen=True, slots=True)
class Settings:
    """mmd.toml with its defaults. `models` has only the models that the file has a table for."""

    gateway: GatewayTable = GatewayTable()
    engines: EnginesTable = EnginesTable()
    models: Mapping[str, ModelTable] = field(default_factory=dict)

    def model(self, model_id: str) -> ModelTable:
        return self.models.get(model_id, _NO_TABLE)


def settings_of(table: type[DataclassInstance]) -> Iterator[Setting]:
    """Yield the keys of a table in their order."""
    for one in fields(table):
        about = one.metadata
        yield Setting(about["key"] or one.name, one.default, about["check"], about["kind"], about["help"])


def all_settings() -> dict[str, tuple[Setting, ...]]:
    """Return the keys of every table: "gateway", "engines", and "models" for a table [models.ID]."""
    return {name: tuple(settings_of(table)) for name, table in {**_TABLES, "models": ModelTable}.items()}


@cache
def _attributes(table: type[DataclassInstance]) -> Mapping[str, str]:
    """Return the name of each key's attribute."""
    return {one.metadata["key"] or one.name: one.name for one in fields(table)}


def read_settings(path: Path | None = None) -> Settings:
    """Read mmd.toml, which may be missing. Raise WrongUsage, which names the line or the key, and StorageFailed."""
    file = path or config_file()
    if not file.exists():
        return Settings()
    import tomllib

    try:
        document = tomllib.loads(file.read_text("utf-8"))
    except FileNotFoundError:
        return Settings()
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise WrongUsage(f"{file} is not TOML: {error}", hint=_edit(file)) from error
    except OSError as error:
        raise StorageFailed(f"{file} cannot be read: {error.strerror}", hint=f"ls -l {file}") from error
    models = _read_models(document.pop("models", {}), file)
    known = {f"{name}.{one.key}": one for name, table in _TABLES.items() for one in settings_of(table)}
    given = {key: value for name in document for key, value in _flat(name, document[name])}
    _check(given, known, "", file)
    return Settings(
        _record(GatewayTable, _below("gateway", given)), _record(EnginesTable, _below("engines", given)), models
    )


def _read_models(tables: Any, file: Path) -> Mapping[str, ModelTable]:
    if not isinstance(tables, dict) or not all(isinstance(table, dict) for table in tables.values()):
        raise WrongUsage(f"{file}: models must be tables, [models.ID]", hint=_edit(file))
    known = {one.key: one for one in settings_of(ModelTable)}
    for model_id, table in tables.items():
        if nested := next((key for key, value in table.items() if isinstance(value, dict) and key not in known), None):
            message = f'{file}: an id with a dot in it must be quoted: [models."{model_id}.{nested}"]'
            raise WrongUsage(message, hint=_edit(file))
        _check(table, known, f"models.{model_id}.", file)
    models = {model_id: _record(ModelTable, table) for model_id, table in tables.items()}
    _refuse_shared_aliases(models, file)
    return models


def _flat(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        yield from ((f"{name}.{key}", inner) for key, inner in value.items())
    else:
        yield name, value


def _below(name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keys of one table; a quoted key like "gateway.listen" without a table counts as well."""
    return {key.removeprefix(f"{name}."): value for key, value in given.items() if key.startswith(f"{name}.")}


def _check(given: Mapping[str, Any], known: Mapping[str, Setting], prefix: str, file: Path) -> None:
    for key, value in given.items():
        if key not in known:
            raise WrongUsage(
                f"{file}: there is no setting {prefix}{key}; there are {', '.join(known)}", hint=_edit(file)
            )
        if not known[key].check(value):
            raise WrongUsage(f"{file}: {prefix}{key} must be {known[key].kind}, not {value!r}", hint=_edit(file))


def _record(table: type[_Table], given: Mapping[str, Any]) -> _Table:
    """Build a table from checked values."""
    attributes = _attributes(table)
    return table(
        **{attributes[key]: tuple(value) if isinstance(value, list) else value for key, value in given.items()}
    )


def _refuse_shared_aliases(models: Mapping[str, ModelTable], file: Path) -> None:
    had_by: dict[str, str] = {}
    for model_id, table in models.items():
        for alias in table.aliases:
            if had_by.setdefault(alias, model_id) != model_id:
                message = f"{file}: {alias!r} is an alias of both {had_by[alias]} and {model_id}"
                raise WrongUsage(message, hint=_edit(file))


def _edit(file: Path) -> str:
    return f"${{EDITOR:-nano}} {file}"
