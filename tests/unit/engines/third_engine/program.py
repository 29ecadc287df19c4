"""`third-server`: the fake llama-server under another name."""

from __future__ import annotations

from pathlib import Path

from tests.fakes.engine import install_fake_llama_server


def install_third_server(folder: Path) -> Path:
    program = folder / "third-server"
    install_fake_llama_server(folder).rename(program)
    return program
