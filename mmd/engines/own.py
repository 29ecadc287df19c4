"""Engines that mmd installed itself: one folder for each under its data folder, complete where it says so."""

from __future__ import annotations

import json
from pathlib import Path

from mmd.paths import engines_dir

# Written last by an installation, so that one that was cut short is not taken for an engine.
MARKER = "installed.json"


def own_program(engine: str) -> Path | None:
    """The program of an engine that mmd installed, or None where it did not."""
    folder = engines_dir() / engine
    try:
        marker = json.loads((folder / MARKER).read_text("utf-8"))
    except FileNotFoundError:
        return None
    program: str = marker["program"]  # relative to the folder: "bin/vllm"
    return folder / program
