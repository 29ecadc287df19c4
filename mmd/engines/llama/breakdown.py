"""Run llama-server for its memory table of a model, which it prints before it reads any weights; then kill it.

The model file may be a stub that has headers only.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import tempfile
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from selectors import EVENT_READ, DefaultSelector
from time import monotonic
from typing import IO

from mmd.engines.llama.breakdown_table import breakdown_in
from mmd.errors import EngineFailed, EngineMissing
from mmd.plan.breakdown import Breakdown
from mmd.plan.engine import Installed

# It takes half a second on a slow machine, and longer if the driver has to wake the GPU.
_TIMEOUT_SECONDS = 20.0
_FLAGS = ("--no-warmup", "--log-jsonl")
_SHOWN_LINES = 60  # an abort is followed by a backtrace of up to 30


def report_breakdown(engine: Installed, arguments: Sequence[str], *, sees_gpus: bool) -> Breakdown:
    """Return the table of a llama-server with these arguments, which contain everything but its address.

    With `sees_gpus` it makes a CUDA context for that second, which takes up to 1 GiB of VRAM. Raises EngineMissing if
    it is too old to report, and EngineFailed with its output if it does not report.
    """
    unknown = [flag for flag in _FLAGS if flag not in engine.flags]
    if unknown:
        raise EngineMissing(
            f"{engine.title} does not accept {unknown[0]}, so it does not report the memory of a model",
            hint="mmd engine install llama.cpp   # a newer version does",
        )
    with tempfile.TemporaryDirectory(prefix="mmd-") as folder, tempfile.TemporaryFile() as stderr:
        argv = (*engine.command, *arguments, *_FLAGS, "--host", f"{folder}/api.sock")
        output: list[str] = []
        with closing(_lines(argv, stderr, sees_gpus=sees_gpus)) as lines:
            for line in lines:
                output.append(line)
                if found := breakdown_in((line,)):
                    return found
        stderr.seek(0)
        output += stderr.read().decode(errors="replace").splitlines()
    raise EngineFailed(
        f"{engine.title} did not report the memory of the model",
        hint=shlex.join((*engine.command, *arguments, *_FLAGS)),
        engine_lines=tuple(output[-_SHOWN_LINES:]),
    )


def _lines(argv: Sequence[str], stderr: IO[bytes], *, sees_gpus: bool) -> Generator[str]:
    """Yield the lines that a program prints until the timeout. Closing kills it with all its children."""
    hidden = {} if sees_gpus else {"CUDA_VISIBLE_DEVICES": "", "HIP_VISIBLE_DEVICES": "", "GGML_VK_VISIBLE_DEVICES": ""}
    try:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stderr,
            env=os.environ | {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"} | hidden,
            start_new_session=True,
        )
    except OSError as error:
        raise EngineMissing(f"{argv[0]} cannot be run: {error.strerror}", hint=f"ls -l {argv[0]}") from error
    try:
        assert process.stdout is not None
        with process.stdout as stdout:
            yield from _lines_until(stdout.fileno(), monotonic() + _TIMEOUT_SECONDS)
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # it was not waited for yet, so the group is still its own
        process.wait()


def _lines_until(descriptor: int, end: float) -> Iterator[str]:
    partial = b""
    with DefaultSelector() as selector:
        selector.register(descriptor, EVENT_READ)
        while (left := end - monotonic()) > 0 and selector.select(left):
            chunk = os.read(descriptor, 1 << 16)
            if not chunk:
                return
            *lines, partial = (partial + chunk).split(b"\n")
            yield from (line.decode(errors="replace") for line in lines)
