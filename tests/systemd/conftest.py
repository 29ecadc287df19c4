from __future__ import annotations

from pathlib import Path

import pytest

from tests.systemd.world import World
from tests.user_manager import UserManager


@pytest.fixture
def world(systemd: UserManager, fake_llama_server: Path, tmp_path: Path) -> World:
    return World(systemd, tmp_path)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.manager)
