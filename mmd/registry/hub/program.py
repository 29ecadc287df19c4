"""Hugging Face's own program, `hf`, as one types it."""

from __future__ import annotations

import shlex
import shutil
import sys
from pathlib import Path


def hf() -> str:
    """By its path where only mmd has it: Debian's package and pipx put nothing but mmd on PATH."""
    beside = Path(sys.executable).with_name("hf")
    return shlex.quote(str(beside)) if shutil.which("hf") is None and beside.exists() else "hf"
