"""What the torch of an engine was built for, as its files say: to import it takes seconds and a gigabyte."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

# In torch/version.py: "cuda: Optional[str] = '12.8'", or "= None" in a build for something else.
_ATTRIBUTE = re.compile(r"^(?P<name>__version__|cuda)\b[^=\n]*= *'(?P<value>[^'\n]*)'", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class TorchBuild:
    version: str  # "2.13.0+cpu"
    cuda: tuple[int, int] | None  # (12, 8); None of a build for the CPU, or for another maker's GPUs


def torch_build(packages: Path) -> TorchBuild | None:
    """Of the torch in a folder of packages; None where there is none, or where it does not say. Raises OSError."""
    try:
        text = (packages / "torch/version.py").read_text("utf-8", "replace")
    except FileNotFoundError:
        return None
    found = {attribute["name"]: attribute["value"] for attribute in _ATTRIBUTE.finditer(text)}
    if "__version__" not in found:
        return None
    major, _, minor = found.get("cuda", "").partition(".")
    return TorchBuild(found["__version__"], (int(major), int(minor)) if major else None)
