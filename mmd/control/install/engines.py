"""The engines of this machine: their status, and the ones that mmd installs and removes."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from mmd.engines import Engine, all_engines
from mmd.engines import engine as engine_named
from mmd.engines.install import Installation, install, installable
from mmd.engines.installer import own
from mmd.engines.installer.process import InstallProgress
from mmd.errors import Busy, EngineMissing, StorageFailed, WrongUsage
from mmd.files import locked
from mmd.machine import read_machine, unit_of_process
from mmd.paths import engines_dir
from mmd.registry.store import Registry
from mmd.settings import Settings
from mmd.units.names import split

FROM_SETTINGS = "mmd.toml"
OWN_PYTHON = "mmd's own Python"


@dataclass(frozen=True, slots=True)
class EngineStatus:
    """An engine of the table on this machine."""

    name: str
    version: str | None  # None if it is not installed, or broken
    place: str | None
    origin: str  # "mmd.toml", "installed by mmd", "PATH", "mmd's own Python"; "" if it is not installed
    sleeps: bool
    formats: tuple[str, ...]
    models: int  # number of registered models that it would serve
    problem: str  # "" if it works
    hint: str  # the command that repairs or installs it


@dataclass(frozen=True, slots=True)
class SupersededInstall:
    """An older installation that processes still run from."""

    folder: Path
    users: tuple[str, ...]


def install_names() -> tuple[str, ...]:
    """Return the names that `install_engine` takes: what people call an engine, and its name in the table."""
    return tuple(name for engine in all_engines() for name in engine.install_names)


def engine_statuses(settings: Settings) -> list[EngineStatus]:
    """Return every engine of the table, best first."""
    formats = [(model.facts.format, settings.model(model.id).engine) for model in Registry().all()]
    served: set[str] = set()  # formats that an engine before this one serves
    statuses = []
    for engine in all_engines():
        status = engine_status(engine, settings)
        models = sum(
            asked == engine.name or (asked is None and form in status.formats and form not in served)
            for form, asked in formats
        )
        served |= set(status.formats)
        statuses.append(replace(status, models=models))
    return statuses


def engine_status(engine: Engine, settings: Settings) -> EngineStatus:
    """Return one engine of the table, with `models` left at 0."""
    configured = settings.engines.place(engine.name)
    try:
        found = engine.find(configured)
    except EngineMissing as error:
        origin = FROM_SETTINGS if configured else ""
        return EngineStatus(engine.name, None, configured, origin, False, (), 0, error.message, error.hint)
    if found is None:
        return EngineStatus(engine.name, None, None, "", False, (), 0, "", _how_to_install(engine))
    place = found.command[0]
    return EngineStatus(
        engine.name, found.version, place, _origin(engine, place, configured), found.can_sleep,
        tuple(engine.formats), 0, "", "",
    )  # fmt: skip


def _origin(engine: Engine, place: str, configured: str | None) -> str:
    if configured is not None:
        return FROM_SETTINGS
    if place == str(own.own_program(engine.name)):
        return "installed by mmd"
    return "PATH" if engine.is_program else OWN_PYTHON


def _how_to_install(engine: Engine) -> str:
    note = "   # continues an interrupted installation" if own.folders(engine.name) else ""
    return engine.how_to_install() + note


def install_engine(
    engine: str, *, version: str | None, for_cpu: bool, progress: InstallProgress
) -> tuple[Installation, tuple[SupersededInstall, ...]]:
    """Install an engine into mmd's own folder, and delete older installations that no process runs from.

    Return those that are still used too. Raises WrongUsage, EngineMissing, StorageFailed.
    """
    wanted = installable(engine)
    with _one_at_a_time():
        done = install(engine, version=version, has_gpu=bool(read_machine().gpus), for_cpu=for_cpu, progress=progress)
        superseded = []
        for folder in own.superseded(wanted.name):
            if users := _users(folder):
                superseded.append(SupersededInstall(folder, users))
            else:
                _delete(wanted, folder)
    return done, tuple(superseded)


def confirm_engine(name: str, program: Path) -> None:
    """Check what `find` reported against the program itself. Raises WrongUsage and EngineMissing."""
    engine_named(name).confirm(program)


def remove_engine(engine: str, settings: Settings) -> None:
    """Remove what mmd installed, with the files that it keeps for models.

    Raises WrongUsage if a model runs on it, or if mmd did not install it.
    """
    wanted = installable(engine)
    with _one_at_a_time():
        there = own.folders(wanted.name)
        if not there:
            raise _not_ours(engine, wanted, settings)
        for folder in there:
            if users := _users(folder):
                pid = users[0].removeprefix("process ")
                hint = (
                    f"mmd stop {users[0]}" if pid == users[0] else f"ps -p {pid} -f   # if it is not needed: kill {pid}"
                )
                raise WrongUsage(f"{users[0]} runs on {engine}, so it is not removed", hint=hint)
        for folder in there:
            _delete(wanted, folder)


def _not_ours(asked: str, engine: Engine, settings: Settings) -> WrongUsage:
    status = engine_status(engine, settings)
    if status.place is None:
        return WrongUsage(f"{asked} is not installed by mmd, and not found elsewhere", hint="mmd engine list")
    return WrongUsage(
        f"{status.place} was not installed by mmd (it comes from {status.origin}), so mmd does not remove it",
        hint="mmd engine list   # shows where each engine is; remove this one with the program that installed it",
    )


def _delete(engine: Engine, folder: Path) -> None:
    marker = own.read_marker(folder)
    own.delete(engine.name, folder)
    if marker is not None and (cache := engine.cache_folder(marker.version)):
        shutil.rmtree(cache, ignore_errors=True)


def _users(folder: Path) -> tuple[str, ...]:
    """Return what runs from a folder: ids of models, awake or asleep, and "process PID" for other processes."""
    names = [folder.resolve()]
    link = folder.with_name(folder.name.rpartition("-")[0])
    if link.resolve() == names[0]:
        names.append(link)  # engines are started by the link, which an upgrade moves
    paths = tuple(os.fsencode(f"{name}/") for name in names)
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        if _runs_from(process, paths):
            unit = split(unit_of_process(int(process.name)))
            found.add(unit[1] if unit else f"process {process.name}")
    return tuple(sorted(found, key=lambda user: (user.startswith("process "), user)))  # models first


def _runs_from(process: Path, paths: tuple[bytes, ...]) -> bool:
    """Check its command line and its mapped files: an engine may have rewritten its command line."""
    try:
        known = (process / "cmdline").read_bytes() + (process / "maps").read_bytes()
    except OSError:
        return False  # it has just ended, or belongs to another user
    return any(path in known for path in paths)


@contextmanager
def _one_at_a_time() -> Iterator[None]:
    path = engines_dir() / ".lock"
    try:
        lock = locked(path, timeout_seconds=0)
    except BlockingIOError as error:
        pid = path.read_text("ascii") or "?"
        raise Busy(f"another mmd installs or removes an engine: process {pid}", hint=f"ps -p {pid} -f") from error
    except OSError as error:
        raise StorageFailed(
            f"{path.parent} cannot be written to: {error.strerror}", hint=f"ls -ld {path.parent.parent}"
        ) from error
    with lock:
        lock.truncate(0)
        lock.write(str(os.getpid()).encode())
        yield
