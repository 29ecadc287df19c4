"""The wheel and the sdist of this tree, built without the network."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def build(kind: str, target: Path, source: Path = ROOT) -> Path:
    """A `wheel` or an `sdist` of `source`, in the folder `target`, which is to be empty or not there."""
    words = [sys.executable, "-m", "hatchling", "build", "--target", kind, "--directory", str(target)]
    subprocess.run(words, cwd=source, check=True, capture_output=True, timeout=50)
    (made,) = target.iterdir()
    return made
