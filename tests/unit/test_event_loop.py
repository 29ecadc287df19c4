"""The plugin that fails tests whose code blocks the event loop, occupies it, or leaves tasks behind."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import event_loop

CODE = """
import asyncio, pathlib, time

async def blocks(file): return reads(file)
def reads(file): return pathlib.Path(file).read_bytes()
async def computes(seconds):
    end = time.thread_time() + seconds
    while time.thread_time() < end: pass
async def in_a_task(work, *args): await asyncio.create_task(work(*args))
def left_behind(): asyncio.run(_leaves())
async def _leaves(): globals()["kept"] = asyncio.create_task(asyncio.sleep(1000))
"""


@pytest.fixture
def product() -> dict[str, Any]:
    """Functions that seem to be mmd's own."""
    functions: dict[str, Any] = {}
    exec(compile(CODE, event_loop._MMD + "made_up.py", "exec"), functions)
    return functions


@pytest.fixture
def found() -> Iterator[Callable[[], list[str]]]:
    """The plugin's findings, cleared so that they do not fail these tests."""
    yield lambda: event_loop._found
    event_loop._found.clear()


Found = Callable[[], list[str]]


async def test_blocking_call_of_a_coroutine_is_found(product: dict[str, Any], found: Found) -> None:
    await product["blocks"](__file__)
    assert found()[0].startswith(
        "io.BufferedReader.read blocks the event loop: made_up.py:5 reads < made_up.py:4 blocks"
    )


async def test_blocking_call_of_a_callback_is_found(product: dict[str, Any], found: Found) -> None:
    asyncio.get_running_loop().call_soon(product["reads"], __file__)
    await asyncio.sleep(0)
    assert "made_up.py:5 reads" in found()[0]


async def test_calls_of_a_test_and_of_a_thread_may_block(product: dict[str, Any], found: Found) -> None:
    Path(__file__).read_bytes()  # noqa: ASYNC240 - that is the point
    product["reads"](__file__)
    await asyncio.to_thread(product["reads"], __file__)
    assert found() == []


async def test_function_of_the_list_may_block(
    product: dict[str, Any], found: Found, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(event_loop._MAY_BLOCK, "made_up.py", (frozenset({"reads"}), "a reason"))
    await product["blocks"](__file__)
    assert found() == []


async def test_long_callback_is_found(product: dict[str, Any], found: Found) -> None:
    await product["in_a_task"](product["computes"], 0.001)
    assert found() == []
    await product["in_a_task"](product["computes"], 2 * event_loop._MAX_CALLBACK_SECONDS)
    assert "ms of CPU time on the event loop" in found()[0]


def test_pending_task_is_found(product: dict[str, Any], found: Found) -> None:
    product["left_behind"]()
    assert found()[0].startswith("a task is pending at the end: <Task pending")


def test_list_names_functions_that_exist() -> None:
    for file, (names, reason) in event_loop._MAY_BLOCK.items():
        text = Path(event_loop._MMD + file).read_text("utf-8")
        assert reason
        assert not [name for name in names if f"def {name}(" not in text], file
