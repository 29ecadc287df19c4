"""mmd from its wheel, in a virtual environment of its own, as `pip install` and pipx install it."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from mmd.paths import config_file, user_unit_dir
from tests.built import build
from tests.systemd.conftest import free_port
from tests.tiny_models import tiny_gguf
from tests.user_manager import UserManager

pytestmark = [pytest.mark.timeout(120), pytest.mark.manager, pytest.mark.engine]


@pytest.fixture
def environment(tmp_path: Path) -> Path:
    """A virtual environment with the wheel in it, and with the dependencies of the one that runs the tests."""
    pytest.importorskip("xllamacpp")
    folder = tmp_path / "venv"
    venv.create(folder)
    python = folder / "bin/python"
    install = ["install", "--quiet", "--no-deps", "--no-index", "--disable-pip-version-check"]
    words: list[str | Path] = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        python,
        *install,
        build("wheel", tmp_path / "wheel"),
    ]
    subprocess.run(words, check=True, timeout=100)
    # A .pth file that is found by way of another does nothing: the checkout, which is installed there, is not seen.
    paths = sysconfig.get_paths(vars={"base": str(folder)})
    Path(paths["purelib"], "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder


@pytest.fixture
def mmd(environment: Path, systemd: UserManager, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Its program, and whatever it installs taken away in the end."""
    monkeypatch.setenv("XDG_CONFIG_HOME", systemd.environment["XDG_CONFIG_HOME"])
    systemd.systemctl("set-environment", f"XDG_DATA_HOME={os.environ['HOME']}/.local/share")
    program = environment / "bin/mmd"
    yield program
    run(program, "install", "--remove")
    config_file().unlink()
    systemd.systemctl("unset-environment", "XDG_DATA_HOME")


def run(program: Path, *words: str | Path) -> str:
    # Not in the checkout, from where an import would find mmd whatever is installed.
    done = subprocess.run([program, *words], cwd="/", capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_model_answers_by_way_of_the_installed_wheel(mmd: Path, environment: Path, tmp_path: Path) -> None:
    address = f"127.0.0.1:{free_port()}"
    config_file().parent.mkdir(parents=True, exist_ok=True)
    config_file().write_text(
        f'[gateway]\nlisten = "{address}"\nembedding_listen = ""\n[models.a]\nengine = "embedded"\n'
    )
    run(mmd, "install")
    unit = (user_unit_dir() / "mmd.service").read_text()
    assert f"ExecStart={environment}/bin/python -P -m mmd gateway\n" in unit
    source = (environment / "share/mmd/units/mmd.service").read_text()
    assert source.replace("@MMD@", f"{environment}/bin/python -P -m mmd") == unit
    run(mmd, "add", tiny_gguf(tmp_path / "a.gguf", name="a"))
    run(mmd, "activate", "a")
    body = {"model": "a", "max_tokens": 3, "messages": [{"role": "user", "content": "Hello"}]}
    answer = httpx.post(f"http://{address}/v1/chat/completions", json=body, timeout=60)
    assert answer.json()["usage"]["completion_tokens"] == 3
