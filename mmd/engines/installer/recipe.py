"""The recipe by which an engine is installed into its virtual environment."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mmd.engines.installer.venv import Release, Venv


@dataclass(frozen=True, slots=True)
class InstallResult:
    program: Path
    without: tuple[str, ...] = ()  # optional packages that could not be installed


@dataclass(frozen=True, slots=True)
class Recipe:
    """One package, and how it is installed."""

    package: str
    takes_bytes: int  # including temporary files
    fill: Callable[[Venv, Release], InstallResult]
    pip_words: tuple[str, ...] = ()  # options for every call of pip
    build: str = ""  # if a package is built in several ways: " with CUDA"

    @property
    def label(self) -> str:
        """Return the name of the installation: another build is another engine."""
        return self.package + self.build
