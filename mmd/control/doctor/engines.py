"""The engines that are here: which work, and whether they use what the machine has."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from mmd.control.doctor.background_read import BackgroundRead, ReadFailed
from mmd.control.doctor.diagnosis import Diagnosis, failed, ok, warning
from mmd.control.doctor.nvidia import Driver
from mmd.control.install.engines import FROM_SETTINGS, EngineStatus, engine_status
from mmd.engines import ENGINES, Engine
from mmd.engines.installer.torch_build import TorchBuild, torch_build
from mmd.engines.llama import embedded
from mmd.engines.llama import find as llama_server
from mmd.engines.vllm import find as vllm
from mmd.settings import Settings

# From which CUDA on a build can know a GPU at all, by the first number of its compute capability.
_CUDA_OF_CAPABILITY: Mapping[int, tuple[int, int]] = {10: (12, 8), 11: (13, 0), 12: (12, 8)}
# CUDA 13 has nothing for GPUs before Turing, and vLLM's own kernels nothing for those before Volta.
_LEAST_CAPABILITY = (7, 0)
_LEAST_CAPABILITY_OF_CUDA_13 = (7, 5)


def read_engines(settings: Settings, *, limit_seconds: float) -> tuple[EngineStatus, ...]:
    """One of them that hangs is one that does not work; it holds up no other."""

    places = [settings.engines.place(engine.name) for engine in ENGINES]
    readings: list[BackgroundRead[EngineStatus]] = [
        BackgroundRead(
            engine.name, partial(engine_status, engine, settings),
            look=f"{place or engine.name} --version", limit_seconds=limit_seconds,
        )
        for engine, place in zip(ENGINES, places, strict=True)
    ]  # fmt: skip
    return tuple(map(_status, ENGINES, places, readings))


def _status(engine: Engine, place: str | None, reading: BackgroundRead[EngineStatus]) -> EngineStatus:
    try:
        return reading.value()
    except ReadFailed as failure:
        origin = FROM_SETTINGS if place else ""
        problem, hint = failure.diagnosis.message, failure.diagnosis.hint
        return EngineStatus(engine.name, None, place, origin, False, (), 0, problem, hint)


def read_devices(engines: Sequence[EngineStatus]) -> tuple[str, ...] | None:
    """The GPUs that llama-server can use; None where there is none, or where it does not say."""
    place = _place(engines, llama_server.NAME)
    return llama_server.devices(place) if place else None


def read_torch(engines: Sequence[EngineStatus]) -> TorchBuild | None:
    """vLLM's; None where there is none, or where it is not beside it."""
    place = _place(engines, vllm.NAME)
    return torch_build(vllm.packages_of(Path(place))) if place else None


def _place(engines: Sequence[EngineStatus], name: str) -> str | None:
    return next((one.place for one in engines if one.name == name and one.version is not None), None)


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
        yield failed("none is installed, so no model can run", "mmd engine install llama.cpp   # for safetensors: vllm")


def _where(engine: EngineStatus) -> str:
    return engine.origin if engine.name == embedded.NAME else f"{engine.place} ({engine.origin})"


def check_gpu_builds(
    engines: Sequence[EngineStatus], devices: tuple[str, ...] | None, torch: TorchBuild | None, driver: Driver
) -> Iterator[Diagnosis]:
    """Whether each engine uses the GPU that is here, and whether it needs one that is not."""
    names = {one.name for one in engines if one.version is not None}
    if not driver.gpus:
        if torch is not None and torch.cuda is not None and not driver.has_card:
            yield warning("vLLM is a build for GPUs, and there is none: it cannot run", "mmd engine install vllm")
        return
    if llama_server.NAME in names and devices == ():
        yield warning(
            "llama-server is a build for the CPU, and leaves the GPU unused",
            "mmd engine install llama.cpp   # with CUDA",
        )
    elif embedded.NAME in names and llama_server.NAME not in names:
        yield warning(
            "the embedded llama.cpp is a build for the CPU, and leaves the GPU unused",
            "mmd engine install llama.cpp   # with CUDA",
        )
    elif devices:
        yield ok(f"llama-server uses {', '.join(devices)}")
    if torch is not None:
        yield _check_torch(torch, driver)


def _check_torch(torch: TorchBuild, driver: Driver) -> Diagnosis:
    if torch.cuda is None:
        return warning(
            f"vLLM's torch {torch.version} is a build for the CPU, and leaves the GPU unused", "mmd engine install vllm"
        )
    built_for = f"CUDA {torch.cuda[0]}.{torch.cuda[1]}"
    if torch.cuda[0] > int(driver.cuda.partition(".")[0]):  # within one major version older drivers do
        return failed(
            f"vLLM is built for {built_for}, and the driver {driver.version} does CUDA up to {driver.cuda}",
            "sudo apt install nvidia-driver   # a newer one; or an older vLLM: mmd engine install vllm --version V",
        )
    for gpu in driver.gpus:
        capability = tuple(int(number) for number in gpu.compute_capability.split("."))
        wanted = _CUDA_OF_CAPABILITY.get(capability[0], (0, 0))
        if torch.cuda < wanted:
            return failed(
                f"vLLM is built for {built_for}, which does not know the {gpu.name}: it wants {wanted[0]}.{wanted[1]}",
                "mmd engine install vllm   # a newer one",
            )
        if capability < (_LEAST_CAPABILITY_OF_CUDA_13 if torch.cuda[0] >= 13 else _LEAST_CAPABILITY):
            return failed(
                f"vLLM is built for {built_for}, which has left behind the {gpu.name} "
                f"(compute capability {gpu.compute_capability})",
                "mmd engine install llama.cpp   # which does; and GGUF files instead of safetensors",
            )
    return ok(f"vLLM is built for {built_for}, which the driver does")
