"""The planner follows mmd.toml, although it reads the file only when it has changed."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator

import pytest

from mmd.control.lifecycle.planner import LaunchPlanner
from mmd.control.state.machine_reader import MachineReader
from mmd.errors import WrongUsage
from mmd.paths import config_file
from mmd.registry.store import Registry


@pytest.fixture
async def planner() -> AsyncIterator[LaunchPlanner]:
    config_file().parent.mkdir(parents=True, exist_ok=True)
    async with MachineReader() as reader:
        yield LaunchPlanner(reader, Registry())


def write(text: str, *, at: int) -> None:
    """Write mmd.toml as of some time: two writes of a test may be closer than the clock of the file system."""
    config_file().write_text(text)
    os.utime(config_file(), (at, at))


async def test_changed_settings_are_read_again(planner: LaunchPlanner) -> None:
    assert not await planner.one_each()
    write('[gpu]\nresidency = "one"\n', at=1)
    assert await planner.one_each()
    write('[gpu]\nresidency = "many"\n[models.a]\npinned = true\n', at=2)
    assert not await planner.one_each()
    assert await planner.pinned() == {"a"}
    write("[gpu]\nresidency = 3\n", at=3)
    for _ in range(2):
        with pytest.raises(WrongUsage):
            await planner.pinned()
    config_file().unlink()
    assert await planner.pinned() == frozenset()
