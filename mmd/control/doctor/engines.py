"""Check the installed engines: whether they work, and whether they use what the machine has."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from mmd.control.doctor.background_read import BackgroundRead, ReadFailed
from mmd.control.doctor.diagnosis import Diagnosis, failed, ok, warning
from mmd.control.doctor.nvidia import Driver
from mmd.control.install.engines import FROM_SETTINGS, OWN_PYTHON, EngineStatus, engine_status
from mmd.engines import Engine, all_engines, for_format
from mmd.engines.build import Build
from mmd.registry.record import Format
from mmd.settings import Settings

# From which CUDA on a build can know a GPU at all, by the first number of its compute capability.
_CUDA_OF_CAPABILITY: Mapping[int, tuple[int, int]] = {10: (12, 8), 11: (13, 0), 12: (12, 8)}


def read_engines(settings: Settings, *, limit_seconds: float) -> tuple[EngineStatus, ...]:
    """One of them that hangs is one that does not work; it holds up no other."""

    places = [settings.engines.place(engine.name) for engine in all_engines()]
    readings: list[BackgroundRead[EngineStatus]] = [
        BackgroundRead(
            engine.name, partial(engine_status, engine, settings),
            hint=f"{place or engine.name} --version", limit_seconds=limit_seconds,
        )
        for engine, place in zip(all_engines(), places, strict=True)
    ]  # fmt: skip
    return tuple(map(_status, all_engines(), places, readings))


def _status(engine: Engine, place: str | None, reading: BackgroundRead[EngineStatus]) -> EngineStatus:
    try:
        return reading.value()
    except ReadFailed as failure:
        origin = FROM_SETTINGS if place else ""
        problem, hint = failure.diagnosis.message, failure.diagnosis.hint
        return EngineStatus(engine.name, None, place, origin, False, (), 0, problem, hint)


def read_build(wanted: Engine, engines: Sequence[EngineStatus], *, has_gpu: bool) -> Build | None:
    """Return what an engine was compiled for; None if a better one serves its formats."""
    served: set[str] = set()
    for status in engines:
        if status.version is None or status.place is None or served.issuperset(status.formats):
            continue
        if status.name == wanted.name:
            return wanted.read_build(Path(status.place), has_gpu=has_gpu)
        served |= set(status.formats)
    return None


def check_engines(engines: Sequence[EngineStatus]) -> Iterator[Diagnosis]:
    has_working = any(one.version is not None for one in engines)
    for one in engines:
        if one.problem and has_working and one.origin != FROM_SETTINGS:
            yield warning(one.problem, one.hint)  # as a start takes it: another engine serves then, if one can
        elif one.problem:
            yield failed(one.problem, one.hint)
        elif one.version is not None:
            yield ok(f"{one.name} {one.version}, {_where(one)}")
    if not has_working and not any(one.problem for one in engines):
        yield failed("none is installed, so no model can run", _how_to_install_one())


def _how_to_install_one() -> str:
    """Return the command for the engine of the first format, with the names of the others."""
    first, *others = (form for form in Format if any(form in engine.formats for engine in all_engines()))
    more = ", ".join(f"for {form}: {for_format(form).install_names[0]}" for form in others)
    return f"mmd engine install {for_format(first).install_names[0]}   # {more}"


def _where(status: EngineStatus) -> str:
    return status.origin if status.origin == OWN_PYTHON else f"{status.place} ({status.origin})"


def check_builds(builds: Iterable[Build | None], driver: Driver) -> Iterator[Diagnosis]:
    """Check whether each engine uses the GPU of this machine, and whether it needs one that is missing."""
    for build in builds:
        if build is None:
            continue
        if driver.gpus:
            yield _check_build(build, driver)
        elif build.cuda is not None and not driver.has_card:
            yield warning(f"{build.name} is a build for GPUs, and there is none: it cannot run", build.gpu_hint)


def _check_build(build: Build, driver: Driver) -> Diagnosis:
    if build.is_for_cpu:
        return warning(f"{build.name} is a build for the CPU, and uses no GPU", build.gpu_hint)
    if build.cuda is None:
        return ok(f"{build.name} uses {', '.join(build.devices or ())}")
    built_for = f"CUDA {build.cuda[0]}.{build.cuda[1]}"
    if build.cuda[0] > int(driver.cuda.partition(".")[0]):  # older drivers of the same major version suffice
        return failed(
            f"{build.name} is built for {built_for}, and the driver {driver.version} does CUDA up to {driver.cuda}",
            f"sudo apt install nvidia-driver   # a newer one; or an older engine: {build.gpu_hint} --version V",
        )
    for gpu in driver.gpus:
        capability = tuple(int(number) for number in gpu.compute_capability.split("."))
        wanted = _CUDA_OF_CAPABILITY.get(capability[0], (0, 0))
        if build.cuda < wanted:
            return failed(
                f"{build.name} is built for {built_for}, which does not know the {gpu.name}: "
                f"it needs {wanted[0]}.{wanted[1]}",
                f"{build.gpu_hint}   # a newer one",
            )
        if capability < build.min_capability:
            return failed(
                f"{build.name} is built for {built_for}, which has left behind the {gpu.name} "
                f"(compute capability {gpu.compute_capability})",
                build.old_gpu_hint,
            )
    return ok(f"{build.name} is built for {built_for}, which the driver does")
