"""How an engine gets into its virtual environment."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mmd.engines.installer.venv import Release, Venv


@dataclass(frozen=True, slots=True)
class InstallResult:
    program: Path
    without: tuple[str, ...] = ()  # packages that were left out


@dataclass(frozen=True, slots=True)
class Recipe:
    """One package, and how it is installed."""

    package: str
    takes_bytes: int  # with what pip unpacks meanwhile
    fill: Callable[[Venv, Release], InstallResult]
    pip_words: tuple[str, ...] = ()  # for every look at the package
    build: str = ""  # where one package is built in several ways: " with CUDA"

    @property
    def label(self) -> str:
        """What an installation says that it is: another build is another engine."""
        return self.package + self.build
