"""The hooks of the stress: a copy, so that a test can break them. What a stress does not notice, it does not test."""

from __future__ import annotations

import shutil
from pathlib import Path

import mmd.hooks

# By name: the file, the text in it, and the text that breaks it.
MUTATIONS: dict[str, tuple[str, str, str]] = {}


def hooks_folder(folder: Path, mutation: str | None = None) -> Path:
    """Copy the hooks into `folder`, broken in one place if wanted; return their folder."""
    made = folder / "hooks"
    shutil.copytree(Path(mmd.hooks.__file__).parent, made, ignore=shutil.ignore_patterns("__pycache__"))
    if mutation is not None:
        name, before, after = MUTATIONS[mutation]
        text = (made / name).read_text()
        assert text.count(before) == 1, f"{name} has changed: write the mutation {mutation} anew"
        (made / name).write_text(text.replace(before, after))
    return made
