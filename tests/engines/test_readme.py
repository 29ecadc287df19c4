"""The README taken literally: the commands of its first screen lead to a response."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from contrib.demo import ADDRESS
from tests.documents import README
from tests.fakes.hub import fake_hub, repositories_in
from tests.systemd.conftest import free_port
from tests.tiny_models import tiny_gguf
from tests.user_manager import UserManager, user_manager

_STEP_SECONDS = 120

pytestmark = [pytest.mark.timeout(300), pytest.mark.manager, pytest.mark.engine]


@pytest.fixture
def manager() -> Iterator[UserManager]:
    """A manager of the test's own: the units must be those of a new user."""
    with user_manager() as manager:
        yield manager
        manager.systemctl("stop", "mmd*.socket", "mmd.service", "mmd-*")


def test_the_first_screen_leads_to_an_answer(manager: UserManager) -> None:
    commands = list(first_commands())
    (repository,) = re.findall(r"mmd pull (\S+)", "\n".join(commands))
    model = manager.home / f"hub/{repository}/model-Q8_0.gguf"
    model.parent.mkdir(parents=True)
    tiny_gguf(model, context=256)  # random weights produce no end token
    address = move_gateway(manager)
    with fake_hub() as hub:
        hub.repositories = repositories_in(manager.home / "hub")
        environment = manager.environment | {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "HF_ENDPOINT": hub.url,
        }
        for command in commands:
            done = subprocess.run(
                ("sh", "-c", command.replace(ADDRESS, address)),
                env=environment,
                cwd=manager.home,
                capture_output=True,
                text=True,
                timeout=_STEP_SECONDS,
                check=False,
            )
            assert done.returncode == 0, f"{command}: {done.stderr}"
    answer = json.loads(done.stdout)
    assert answer["model"] == "qwen3"
    assert answer["choices"][0]["message"]["content"]


def first_commands() -> Iterator[str]:
    """Yield the commands of mmd and the question, without those that build and install mmd."""
    screen = README.read_text("utf-8").partition("\n## An answer in two commands\n")[2].partition("\n## ")[0]
    for line in re.findall(r"^ {4}(.*)$", screen, re.MULTILINE):
        command = re.sub(r" +# .*", "", line)
        if command.startswith(("mmd ", "curl ")):
            yield command


def move_gateway(manager: UserManager) -> str:
    """Listen on a free port. Return the address."""
    address = f"127.0.0.1:{free_port()}"
    settings = manager.home / ".config/mmd/mmd.toml"
    settings.parent.mkdir(parents=True)
    settings.write_text(f'[gateway]\nlisten = "{address}"\nembedding_listen = ""\n', "utf-8")
    return address
