"""Hugging Face's own program, `hf`, as a command to paste."""

from __future__ import annotations

import shlex
import shutil
import sys
from pathlib import Path


def hf() -> str:
    """Return `hf`, with its path if it is not on PATH: Debian's package and pipx put only mmd there."""
    beside = Path(sys.executable).with_name("hf")
    return shlex.quote(str(beside)) if shutil.which("hf") is None and beside.exists() else "hf"
