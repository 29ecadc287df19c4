"""Install engines into mmd's own folder.

An installation that was interrupted is not used as an engine, and the next one continues it.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from mmd.engines import Engine, all_engines, engine
from mmd.engines.installer import own
from mmd.engines.installer.own import OwnEngine
from mmd.engines.installer.process import InstallProgress, Worker
from mmd.engines.installer.recipe import InstallResult, Recipe
from mmd.engines.installer.venv import IndexUnreachable, PipFailed, Release, Venv, WrongPython, suitable_pythons
from mmd.errors import EngineMissing, StorageFailed, WrongUsage
from mmd.paths import engines_dir, make_private, state_dir
from mmd.quantities import GIB, size_text


@dataclass(frozen=True, slots=True)
class Installation:
    engine: OwnEngine
    is_new: bool  # False if this version was already installed
    without: tuple[str, ...]  # optional packages that could not be installed


def installable(name: str) -> Engine:
    """Return the engine that people call `name`. Raises WrongUsage if mmd does not install it."""
    able = [one for one in all_engines() if one.install_names]
    for one in able:
        if name in one.install_names:
            return one
    first, *others = (one.install_names[0] for one in able)
    raise WrongUsage(
        f"mmd does not install an engine {name!r}", hint=f"mmd engine install {first}   # or {', '.join(others)}"
    )


def install(
    engine_name: str, *, version: str | None, has_gpu: bool, for_cpu: bool = False, progress: InstallProgress
) -> Installation:
    """Install an engine, or another version beside the present one; it reuses what an interrupted run downloaded.

    It takes minutes and needs the network. Raises WrongUsage, EngineMissing and StorageFailed.
    """
    wanted = installable(engine_name)
    recipe = wanted.recipe(has_gpu=has_gpu, for_cpu=for_cpu)
    log = state_dir() / "engine-install.log"
    try:
        make_private(log.parent)
        log.write_text("")
        return _install(wanted.name, recipe, version, Worker(log, progress))
    except IndexUnreachable as error:
        raise EngineMissing(
            f"{engine_name} could not be installed: {error}",
            hint=f"mmd engine install {engine_name}   # continues; the output of pip: {log}",
        ) from error
    except PipFailed as error:
        raise EngineMissing(
            f"{engine_name} could not be installed: {error}", hint=f"less {log}   # the output of pip"
        ) from error
    except OSError as error:
        raise StorageFailed(
            f"{engine_name} could not be installed into {engines_dir()}: {error.strerror or error}",
            hint=f"df -h {engines_dir()}; less {log}",
        ) from error


def _install(name: str, recipe: Recipe, version: str | None, worker: Worker) -> Installation:
    if there := _installed_already(name, recipe, version, worker):
        return there
    folder = own.folder_to_fill(name, recipe.label)
    make_private(folder)
    _require_room(folder, recipe.takes_bytes)
    venv = Venv(folder, worker)
    venv.forget_half_installed()
    release = _made_for(venv, recipe, version)
    own.begin(folder, recipe.label)
    worker.progress.step(f"Installing {recipe.package} {release.version} into {folder}")
    filled = recipe.fill(venv, release)
    _require_it_works(name, filled, worker)
    made = OwnEngine(
        program=os.fspath(filled.program.relative_to(folder)),
        package=recipe.label,
        version=release.version,
        installed_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    own.complete(name, folder, made)
    return Installation(made, is_new=True, without=filled.without)


def _installed_already(name: str, recipe: Recipe, version: str | None, worker: Worker) -> Installation | None:
    """Return the requested version, or the newest, if it is installed, in use or kept for a model."""
    whole = {}
    for folder in own.folders(name):
        marker = own.read_marker(folder)
        if marker and marker.package == recipe.label and Venv(folder, worker).is_made():
            whole[marker.version] = (folder, marker)
    if whole and version is None:
        folder, _ = next(reversed(whole.values()))
        worker.progress.step(f"Asking for the newest {recipe.package}")
        version = Venv(folder, worker).newest(recipe.package, *recipe.pip_words).version
    if version not in whole:
        return None
    folder, marker = whole[version]
    own.use(name, folder)
    return Installation(marker, is_new=False, without=())


def _made_for(venv: Venv, recipe: Recipe, version: str | None) -> Release:
    """Make the environment with a Python that the package supports, and return the release to install.

    It is the newest release, not the newest for this Python: old releases of vLLM claim to run on any Python.
    """
    requirement = f"{recipe.package}=={version}" if version else recipe.package
    wanted: Release | None = None
    refusals: list[EngineMissing] = []
    for python in (*((venv.python,) if venv.is_made() else ()), *suitable_pythons()):
        try:
            if python != venv.python:
                venv.make(python)
        except EngineMissing as error:
            refusals.append(error)
            continue
        venv.worker.progress.step(f"Asking for {'the newest ' if version is None else ''}{requirement}")
        wanted = wanted or venv.newest(requirement, *recipe.pip_words)
        try:
            return venv.release(f"{recipe.package}=={wanted.version}", *recipe.pip_words)
        except WrongPython:
            continue
    if wanted is None:
        raise refusals[0]
    raise EngineMissing(
        f"{recipe.package} {wanted.version} needs Python {wanted.python}, and PATH has none",
        hint="sudo apt install python3-venv   # of that version; or: uv python install 3.13",
    )


def _require_room(folder: Path, takes_bytes: int) -> None:
    there_bytes = sum(path.lstat().st_size for path in folder.rglob("*"))
    needed_bytes, free_bytes = takes_bytes - there_bytes, shutil.disk_usage(folder).free
    if free_bytes < needed_bytes:
        needs, has = f"{needed_bytes / GIB:.0f} GiB by estimate", f"{size_text(free_bytes)} free"
        hint = f"df -h {engines_dir()}   # free some space there"
        raise StorageFailed(f"it takes {needs}, and {engines_dir()} has {has}", hint=hint)


def _require_it_works(name: str, filled: InstallResult, worker: Worker) -> None:
    """Raise EngineMissing unless it starts and mmd's probe accepts it."""
    worker.progress.step("Checking that it starts")
    hint = f"less {worker.log}   # its output; to start over: mmd engine remove {name}"
    try:
        done = worker.run(filled.program, "--version")
    except OSError as error:
        raise EngineMissing(f"{name} was installed, but {filled.program} does not exist", hint=hint) from error
    if done.status != 0:
        raise EngineMissing(f"{name} was installed and does not start: {done.last_line}", hint=hint)
    engine(name).find(os.fspath(filled.program))
