"""Read what vLLM's torch was built for from its files; importing it takes seconds and a gigabyte."""

from __future__ import annotations

import re
from pathlib import Path

from mmd.engines.build import Build
from mmd.engines.vllm.find import packages_of

# In torch/version.py: "cuda: Optional[str] = '12.8'", or "= None" in a build for something else.
_ATTRIBUTE = re.compile(r"^(?P<name>__version__|cuda)\b[^=\n]*= *'(?P<value>[^'\n]*)'", re.MULTILINE)
# CUDA 13 has nothing for GPUs before Turing, and vLLM's own kernels nothing for those before Volta.
_MIN_CAPABILITY = (7, 0)
_MIN_CAPABILITY_OF_CUDA_13 = (7, 5)


def read_build(program: Path) -> Build | None:
    """Return the build of the vLLM behind a program. Raises EngineMissing and OSError."""
    return torch_build(packages_of(program))


def torch_build(packages: Path) -> Build | None:
    """Return the build of the torch in a folder of packages; None if it does not say. Raises OSError."""
    try:
        text = (packages / "torch/version.py").read_text("utf-8", "replace")
    except FileNotFoundError:
        return None
    found = {attribute["name"]: attribute["value"] for attribute in _ATTRIBUTE.finditer(text)}
    if "__version__" not in found:
        return None
    major, _, minor = found.get("cuda", "").partition(".")
    return build_of(found["__version__"], (int(major), int(minor)) if major else None)


def build_of(version: str, cuda: tuple[int, int] | None) -> Build:
    return Build(
        "vLLM" if cuda else f"vLLM's torch {version}",
        cuda=cuda,
        min_capability=_MIN_CAPABILITY_OF_CUDA_13 if cuda and cuda[0] >= 13 else _MIN_CAPABILITY,
        gpu_hint="mmd engine install vllm",
        old_gpu_hint="mmd engine install llama.cpp   # which does; and GGUF files instead of safetensors",
    )
