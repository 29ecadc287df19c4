"""The names of engines on a command line."""

from __future__ import annotations

from mmd.engines import ENGINES


def install_names() -> tuple[str, ...]:
    """Return the names that `mmd engine install` takes: what people call an engine, and what the table calls it."""
    return tuple(name for engine in ENGINES for name in engine.install_names)
