"""The engines of this machine: which there are, and those that mmd installs and removes itself."""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mmd.engines import ENGINES, Engine, vllm
from mmd.engines.install import NAMES, install, superseded
from mmd.engines.own import OwnEngine, delete, folders, own_program
from mmd.errors import EngineMissing, MmdError, WrongUsage
from mmd.machine import read_machine, unit_of_process
from mmd.paths import cache_dir, engines_dir
from mmd.settings import Settings
from mmd.units.names import split

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class EngineStatus:
    """An engine of the table, as it is here."""

    name: str
    version: str | None  # None where it is not installed, or broken
    place: str | None
    origin: str  # "mmd.toml", "installed by mmd", "PATH", "mmd's own Python"; "" where it is not installed
    sleeps: bool
    formats: tuple[str, ...]
    problem: str  # "" where all is well
    hint: str  # what would mend that, or install it


def engine_statuses(settings: Settings) -> list[EngineStatus]:
    """Every engine of the table, best first."""
    return [_status(engine, settings) for engine in ENGINES]


def _status(engine: Engine, settings: Settings) -> EngineStatus:
    configured = settings.values.get(f"engines.{engine.name}")
    try:
        found = engine.find(configured)
    except EngineMissing as error:
        return EngineStatus(engine.name, None, configured, "", False, (), error.message, error.hint)
    if found is None:
        return EngineStatus(engine.name, None, None, "", False, (), "", _how_to_install(engine.name))
    place = found.command[0]
    return EngineStatus(
        engine.name, found.version, place, _origin(engine.name, place, configured), found.can_sleep,
        tuple(found.formats), "", "",
    )  # fmt: skip


def _origin(name: str, place: str, configured: str | None) -> str:
    if configured is not None:
        return "mmd.toml"
    if place == str(own_program(name)):
        return "installed by mmd"
    return "PATH" if name in NAMES else "mmd's own Python"


def _how_to_install(name: str) -> str:
    if name == "embedded":
        return "pip install 'mmd[embedded]'"
    return f"mmd engine install {'llama.cpp' if name == 'llama-server' else name}"


def install_engine(engine: str, *, version: str | None, progress: Callable[[str], None]) -> OwnEngine:
    """Install an engine into mmd's own folder, and take away older ones that nothing runs from.

    Raises WrongUsage, EngineMissing, StorageFailed.
    """
    with _one_at_a_time():
        made = install(engine, version=version, has_gpu=bool(read_machine().gpus), progress=progress)
        name = NAMES[engine]
        for folder in superseded(name):
            if running := _models_on(folder):
                _log.warning("the older %s stays in %s: %s runs on it", name, folder, ", ".join(running))
            else:
                delete(name, folder)
    return made


def confirm_engine(program: Path) -> None:
    """See vllm.confirm."""
    vllm.confirm(program)


def remove_engine(engine: str) -> None:
    """Remove what mmd installed, with what vLLM has compiled. Raises WrongUsage where a model runs on it, or where it
    is not mmd's.
    """
    name = NAMES.get(engine, engine)
    with _one_at_a_time():
        there = folders(name)
        if not there:
            raise WrongUsage(f"mmd has not installed {engine}, so it does not remove it", hint="mmd engine list")
        if running := [model_id for folder in there for model_id in _models_on(folder)]:
            raise WrongUsage(f"{running[0]} runs on it", hint=f"mmd stop {running[0]}")
        for folder in there:
            delete(name, folder)
    if name == "vllm":
        shutil.rmtree(cache_dir() / "vllm", ignore_errors=True)


def _models_on(folder: Path) -> list[str]:
    """The models whose engines run from a folder, asleep or awake."""
    there = os.fsencode(f"{folder.resolve()}/")
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            runs_there = there in (process / "cmdline").read_bytes()
        except OSError:
            continue  # it has just ended
        if runs_there and (name := split(unit_of_process(int(process.name)))) is not None:
            found.add(name[1])
    return sorted(found)


@contextmanager
def _one_at_a_time() -> Iterator[None]:
    path = engines_dir() / ".lock"
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with path.open("a+", encoding="ascii") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            pid = file.read().strip() or "?"
            raise MmdError(
                f"another mmd installs or removes an engine: process {pid}", hint=f"ps -p {pid} -f"
            ) from error
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield
