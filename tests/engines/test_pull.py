"""From a search to a response, with an engine that computes it."""

from __future__ import annotations

import os

import pytest

from mmd.paths import config_file
from tests.fakes.hub import FakeHub
from tests.systemd.conftest import address, installed, world
from tests.systemd.test_pull import gateway, repositories, search_pull_activate_chat

__all__ = ["address", "gateway", "installed", "repositories", "world"]

pytestmark = [pytest.mark.timeout(120), pytest.mark.manager, pytest.mark.engine]


def test_from_a_search_to_an_answer(hub: FakeHub, gateway: str) -> None:
    program = os.environ.get("MMD_TEST_LLAMA_SERVER")
    if program is None:
        pytest.skip("MMD_TEST_LLAMA_SERVER names no llama-server")
    with config_file().open("a") as settings:
        settings.write(f'\n[engines]\nllama-server = "{program}"\n')
    assert search_pull_activate_chat(hub, gateway)
