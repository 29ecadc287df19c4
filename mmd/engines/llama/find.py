"""Find and probe llama-server: at the configured place, in mmd's own folder, or on PATH."""

from __future__ import annotations

import os
import re
import shutil
from functools import lru_cache
from typing import TYPE_CHECKING

from mmd.engines.installer.own import own_program
from mmd.errors import EngineMissing
from mmd.plan.engine import Installed, Planner

if TYPE_CHECKING:
    import subprocess

NAME = "llama-server"
PROBE_SECONDS = 20  # it takes 8 ms, and longer if the driver has to wake the GPU

# There are two forms: "version: 9611 (02182fc5b)", and since 0.6 "version: 0.6.0 (build 11434, commit 02182fc)".
_VERSION = re.compile(r"^version: (\S+) \(", re.MULTILINE)
# An option's line starts at the margin with its spellings: "-c,    --ctx-size N       size of the prompt context".
_SPELLINGS = re.compile(r"^-{1,2}[A-Za-z][\w-]*(?:, +-{1,2}[A-Za-z][\w-]*)*", re.MULTILINE)
# "  CUDA0: NVIDIA GeForce RTX 4070 (12281 MiB, 11914 MiB free)", or "  (none)".
_DEVICE = re.compile(r"^  (\w+): ", re.MULTILINE)


def find(engine: Planner, configured: str | None) -> Installed | None:
    program = shutil.which(configured or own_program(NAME) or NAME)
    if program is None and configured is None:
        return None
    if program is None:
        raise EngineMissing(
            f"{NAME} is configured as {configured}, and there is no such executable file",
            hint=f"ls -l {configured}",
        )
    return probe(engine, os.path.abspath(program))  # noqa: PTH100 Path.resolve would follow the link that an upgrade moves


def probe(engine: Planner, program: str) -> Installed:
    """Ask the program for its version and options.

    That takes 12 ms, half of a swap's cost without the engine, so a process asks again only if the file has changed.
    """
    try:
        status = os.stat(program)  # noqa: PTH116 the file behind a link, as it is run
    except OSError as error:
        raise EngineMissing(f"{program} cannot be run: {error.strerror}", hint=f"ls -l {program}") from error
    return _probe(engine, program, (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns))


@lru_cache(maxsize=4)
def _probe(engine: Planner, program: str, _stamp: tuple[int, ...]) -> Installed:
    # Both run at once, so that the probe takes as long as one.
    with _ask(program, "--help") as help_process, _ask(program, "--version") as version_process:
        try:
            help_text, version_text = _answer(program, help_process), _answer(program, version_process)
        finally:
            # If one failed, the other may still run; kill() on a process that has ended does nothing.
            help_process.kill()
            version_process.kill()
    flags = parse_flags(help_text)
    version = _VERSION.search(version_text)
    if version is None or "--host" not in flags:
        raise EngineMissing(
            f"{program} does not answer like {NAME}: {_last_line(version_text)}",
            hint=f"{program} --version",
        )
    return Installed(
        engine=engine,
        command=(program,),
        version=version[1],
        flags=flags,
    )


def parse_flags(help_text: str) -> frozenset[str]:
    """Return every spelling of every option in llama.cpp's `--help`."""
    return frozenset(spelling.strip() for line in _SPELLINGS.findall(help_text) for spelling in line.split(","))


def devices(program: str) -> tuple[str, ...] | None:
    """Return the GPUs that this build can use, by its own names; () for a build for the CPU, None if it does not say.

    It initialises each of them, which may take half a second.
    """
    try:
        with _ask(program, "--list-devices") as process:
            try:
                text = _answer(program, process)
            finally:
                process.kill()
    except EngineMissing:
        return None  # versions before March 2025 do not have the option
    heading, _, listed = text.partition("Available devices:")
    return tuple(_DEVICE.findall(listed)) if heading != text else None


def _ask(program: str, option: str) -> subprocess.Popen[str]:
    import subprocess

    try:
        # One stream for both: --help goes to stdout, --version and the loader's complaints to stderr.
        return subprocess.Popen(
            (program, option),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
    except OSError as error:
        # A file without #! or for another processor: the kernel refuses it.
        raise EngineMissing(f"{program} cannot be run: {error.strerror}", hint=f"file {program}") from error


def _answer(program: str, process: subprocess.Popen[str]) -> str:
    import subprocess

    try:
        text, _ = process.communicate(timeout=PROBE_SECONDS)
    except subprocess.TimeoutExpired as error:
        raise EngineMissing(
            f"{program} did not report its version within {PROBE_SECONDS} s", hint=f"{program} --version"
        ) from error
    if process.returncode != 0:
        raise EngineMissing(f"{program} does not start: {_last_line(text)}", hint=f"{program} --version")
    return text


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1] if lines else "it printed nothing"
