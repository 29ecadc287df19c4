"""The user's settings: the tables of mmd.toml as records, and their reader."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from mmd import setting_values as values
from mmd.errors import StorageFailed, WrongUsage
from mmd.paths import config_file

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

_Table = TypeVar("_Table", bound="DataclassInstance")


@dataclass(frozen=True, slots=True)
class Setting:
    """One key of a table in mmd.toml."""

    key: str
    default: Any  # MISSING if the key is required
    check: Callable[[Any], bool]  # of the value as TOML has it
    kind: str  # what `check` accepts, for the error message and the man page
    help: str


def _setting(default: Any, check: Callable[[Any], bool], kind: str, help: str, *, key: str = "") -> Any:
    """Declare a field of a table. `key` is its name in mmd.toml if Python cannot spell it."""
    return field(default=default, metadata={"check": check, "kind": kind, "help": help, "key": key})


_ADDRESS = '"HOST:PORT"'
_SECONDS = "a number of seconds"
_SECONDS_OR_NEVER = "a number of seconds, or 0 for never"
_SECONDS_OR_UNLIMITED = "a number of seconds, or 0 for no limit"


@dataclass(frozen=True, slots=True)
class GatewayTable:
    """[gateway]"""

    listen: str = _setting("127.0.0.1:8000", values.is_listen, _ADDRESS, "address that the gateway listens on")
    embedding_listen: str = _setting(
        "127.0.0.1:8085",
        values.is_listen_or_off,
        f'{_ADDRESS}, or "" for none',
        "address where a request that names no model goes to the embedding model",
    )
    hosts: tuple[str, ...] = _setting(
        (),
        values.is_hosts,
        'a list of host names, like ["llm.example.org"]',
        "further names that clients reach the gateway by, such as the name of a reverse proxy",
    )
    origins: tuple[str, ...] = _setting(
        (),
        values.is_origins,
        'a list of origins, like ["https://chat.example.org"]',
        "web sites whose pages may use the gateway, beside pages of this machine",
    )
    # 0: a response is never cut by default; a client that waits for it decides itself how long.
    drain_seconds: int = _setting(
        0,
        values.is_number,
        _SECONDS_OR_UNLIMITED,
        "maximum time that a swap waits for running responses of the models that leave; then they are cut, with the "
        "error swapped_out",
    )
    max_wait_seconds: int = _setting(
        60,
        values.is_number,
        _SECONDS,
        "requests for the resident model are admitted first only while every waiting request can still be served "
        "within this time; the time that running responses need to finish is not counted",
    )
    min_residency_seconds: int = _setting(
        2, values.is_number, _SECONDS, "minimum residency of a busy model while requests for other models wait"
    )
    # 0: on a GPU that no other program needs, a loaded model costs nothing and the next request does not wait.
    idle_sleep_seconds: int = _setting(
        0,
        values.is_number,
        _SECONDS_OR_NEVER,
        "idle time after which a model is put to sleep, or stopped if its engine cannot sleep",
    )
    # 0: when RAM gets short, sleeping models give it back anyway; see control/lifecycle/memory_pressure.py.
    idle_stop_seconds: int = _setting(
        0, values.is_number, _SECONDS_OR_NEVER, "time asleep after which a model is stopped"
    )
    suspend: Literal["release", "leave"] = _setting(
        "release",
        values.is_suspend,
        '"release" or "leave"',
        "what happens to models in GPU memory when the machine suspends: they are unloaded and restored after resume, "
        "or left there for a driver that saves GPU memory (NVreg_PreserveVideoMemoryAllocations=1)",
    )


@dataclass(frozen=True, slots=True)
class EnginesTable:
    """[engines]: the place of an engine's program, by the name of the engine."""

    llama_server: str | None = _setting(
        None,
        values.is_absolute,
        "an absolute path",
        "the llama-server to use instead of the one on PATH",
        key="llama-server",
    )
    vllm: str | None = _setting(
        None,
        values.is_absolute,
        "an absolute path",
        "the vllm to use instead of the one on PATH, or the virtual environment that contains it",
    )

    def place(self, engine: str) -> str | None:
        """Return the path set for an engine, None if mmd.toml sets none."""
        attribute = _attributes(EnginesTable).get(engine)
        place: str | None = getattr(self, attribute) if attribute else None
        return place


@dataclass(frozen=True, slots=True)
class GpuTable:
    """[gpu]: how models share the devices: the GPUs, and the RAM of models on the CPU."""

    residency: Literal["many", "one"] = _setting(
        "many",
        values.is_residency,
        '"many" or "one"',
        "how many models a device holds at a time: all that fit beside each other, or strictly one",
    )
    safe_maximum: str | Mapping[str, str] | None = _setting(
        None,
        values.is_safe_maximum,
        'a size of 1 GiB or more, like "15.5G", or a table of sizes by index or UUID of a GPU, and "ram"',
        "the most that models and leases may hold of each GPU, or of the devices in the table",
    )
    games: Literal["yield", "ignore"] = _setting(
        "ignore",
        values.is_games,
        '"yield" or "ignore"',
        "what happens when GameMode reports a game: models leave the GPUs until it ends, or nothing",
    )


@dataclass(frozen=True, slots=True)
class ModelTable:
    """[models.ID]"""

    engine: str | None = _setting(None, values.is_text, "an engine's name", "the engine that runs it")
    context: int | None = _setting(
        None, values.is_context, "a number of tokens", "its context; if not set, the engine takes what fits"
    )
    ready_seconds: int | None = _setting(
        None, values.is_number, _SECONDS, "maximum time for loading, after which the start counts as failed"
    )
    arguments: tuple[str, ...] = _setting(
        (), values.is_words, "a list of strings", "further arguments for its engine, at the end of the command line"
    )
    aliases: tuple[str, ...] = _setting(
        (), values.is_aliases, "a list of names", "other names that clients may use for it"
    )
    idle_sleep_seconds: int | None = _setting(
        None, values.is_number, _SECONDS_OR_NEVER, "this model's own value of gateway.idle_sleep_seconds"
    )
    idle_stop_seconds: int | None = _setting(
        None, values.is_number, _SECONDS_OR_NEVER, "this model's own value of gateway.idle_stop_seconds"
    )
    pinned: bool = _setting(
        False,
        values.is_flag,
        "true or false",
        "keep it loaded: idleness, memory pressure and requests for other models never unload it, only an explicit "
        "command does",
    )
    startup: Literal["disabled", "sleep", "active"] = _setting(
        "disabled",
        values.is_startup,
        '"disabled", "sleep" or "active"',
        "what happens to it when the machine boots: it is loaded and put to sleep, or it is the default model",
    )


@dataclass(frozen=True, slots=True)
class SetupTable:
    """[setups.NAME]"""

    models: tuple[str, ...] = _setting(
        MISSING,
        values.is_members,
        "a list of at least one model, each named once",
        "the models that are resident together",
    )
    note: str = _setting("", values.is_text, "a text", "what it is for; lists show it")
    expose: tuple[str, ...] = _setting(
        (),
        values.is_aliases,
        "a list of models of this setup",
        "the models that activating the setup makes reachable from the internet, as mmd expose does, until the setup "
        "is put to sleep or stopped",
    )
    startup: Literal["disabled", "active"] = _setting(
        "disabled",
        values.is_setup_startup,
        '"disabled" or "active"',
        "what happens to it when the machine boots: nothing, or it is the default and is loaded",
    )


@dataclass(frozen=True, slots=True)
class BootTable:
    """[boot]"""

    restore_last: bool = _setting(
        False,
        values.is_flag,
        "true or false",
        "load at boot the models that were resident before it, as far as they fit; there is no other default then",
    )


_TABLES: Mapping[str, type[DataclassInstance]] = {
    "gateway": GatewayTable,
    "engines": EnginesTable,
    "boot": BootTable,
    "gpu": GpuTable,
}
_NO_TABLE = ModelTable()


@dataclass(frozen=True, slots=True)
class Settings:
    """mmd.toml with its defaults. `models` has only the models that the file has a table for."""

    gateway: GatewayTable = GatewayTable()
    engines: EnginesTable = EnginesTable()
    gpu: GpuTable = GpuTable()
    models: Mapping[str, ModelTable] = field(default_factory=dict)
    setups: Mapping[str, SetupTable] = field(default_factory=dict)
    boot: BootTable = BootTable()

    def model(self, model_id: str) -> ModelTable:
        return self.models.get(model_id, _NO_TABLE)


def settings_of(table: type[DataclassInstance]) -> Iterator[Setting]:
    """Yield the keys of a table in their order."""
    for one in fields(table):
        about = one.metadata
        yield Setting(about["key"] or one.name, one.default, about["check"], about["kind"], about["help"])


def all_settings() -> dict[str, tuple[Setting, ...]]:
    """Return the keys of every table; "models" stands for a table [models.ID], "setups" for [setups.NAME]."""
    tables = {**_TABLES, "models": ModelTable, "setups": SetupTable}
    return {name: tuple(settings_of(table)) for name, table in tables.items()}


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
    setups = _read_setups(document.pop("setups", {}), models, file)
    known = {f"{name}.{one.key}": one for name, table in _TABLES.items() for one in settings_of(table)}
    given = {key: value for name in document for key, value in _flat(name, document[name])}
    _check(given, known, "", file)
    return Settings(
        gateway=_record(GatewayTable, _below("gateway", given)),
        engines=_record(EnginesTable, _below("engines", given)),
        models=models,
        setups=setups,
        boot=_record(BootTable, _below("boot", given)),
        gpu=_record(GpuTable, _below("gpu", given)),
    )


def _read_models(tables: Any, file: Path) -> Mapping[str, ModelTable]:
    models = _read_named(ModelTable, "models", "ID", tables, file)
    _refuse_shared_aliases(models, file)
    return models


def _read_setups(tables: Any, models: Mapping[str, ModelTable], file: Path) -> Mapping[str, SetupTable]:
    setups = _read_named(SetupTable, "setups", "NAME", tables, file)
    has_alias = {alias: model_id for model_id, table in models.items() for alias in table.aliases}
    for name, setup in setups.items():
        if not values.is_setup_name(name):
            message = f"{file}: {name!r} is not a setup's name: use lower-case letters, digits and . _ -, at most 64"
            raise WrongUsage(message, hint=_edit(file))
        if name in has_alias:
            message = f"{file}: {name} is both a setup and an alias of {has_alias[name]}"
            raise WrongUsage(message, hint=_edit(file))
        if outside := [one for one in setup.expose if one not in setup.models]:
            message = f"{file}: setups.{name}.expose names {outside[0]}, which is not among its models"
            raise WrongUsage(message, hint=_edit(file))
    return setups


def _read_named(kind: type[_Table], name: str, instance: str, tables: Any, file: Path) -> dict[str, _Table]:
    """Read the tables [NAME.INSTANCE], all of one kind."""
    if not isinstance(tables, dict) or not all(isinstance(table, dict) for table in tables.values()):
        raise WrongUsage(f"{file}: {name} must be tables, [{name}.{instance}]", hint=_edit(file))
    known = {one.key: one for one in settings_of(kind)}
    for key, table in tables.items():
        if nested := next(
            (inner for inner, value in table.items() if isinstance(value, dict) and inner not in known), None
        ):
            what = "an id" if instance == "ID" else "a name"
            message = f'{file}: {what} with a dot in it must be quoted: [{name}."{key}.{nested}"]'
            raise WrongUsage(message, hint=_edit(file))
        _check(table, known, f"{name}.{key}.", file)
        if missing := next((one for one in known.values() if one.default is MISSING and one.key not in table), None):
            message = f"{file}: {name}.{key} has no {missing.key}, which must be {missing.kind}"
            raise WrongUsage(message, hint=_edit(file))
    return {key: _record(kind, table) for key, table in tables.items()}


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
