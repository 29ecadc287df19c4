"""The wheel and the sdist of this tree, built without the network."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def build(kind: str, target: Path, source: Path = ROOT) -> Path:
    """Build the `wheel` or `sdist` of `source` into `target`, a folder that is empty or does not exist."""
    words = [sys.executable, "-m", "hatchling", "build", "--target", kind, "--directory", str(target)]
    subprocess.run(words, cwd=source, check=True, capture_output=True, timeout=50)
    (made,) = target.iterdir()
    return made
