"""Background tasks: what ends them is logged at once, and loops start again."""

from __future__ import annotations

import ast
import asyncio
import logging
from pathlib import Path

import pytest

import mmd
from mmd.errors import StorageFailed
from mmd.tasks import keep_running, spawn

ROOT = Path(mmd.__file__).parent


async def _fail(error: Exception) -> None:
    raise error


async def test_failure_is_logged_while_its_task_is_kept(caplog: pytest.LogCaptureFixture) -> None:
    """asyncio logs it when the task is collected, which never happens while a reference is kept."""
    task = spawn("swap events", _fail(OSError("gone")))
    await asyncio.wait([task])
    await asyncio.sleep(0)
    (record,) = caplog.records
    assert record.getMessage() == "swap events failed: gone"
    assert record.exc_info is not None


async def test_result_that_is_read_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    task = spawn("x", _fail(OSError("gone")), logs=False)
    with pytest.raises(OSError, match="gone"):
        await task
    assert caplog.records == []


async def test_cancelled_task_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    task = spawn("x", asyncio.sleep(1000))
    task.cancel()
    await asyncio.wait([task])
    await asyncio.sleep(0)
    assert caplog.records == []


async def test_loop_starts_again_and_backs_off(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR, "mmd")
    waited: list[float] = []
    failures = [OSError("a"), StorageFailed("b", hint=""), OSError("c"), *(OSError("d") for _ in range(6))]

    async def sleep(seconds: float) -> None:
        waited.append(seconds)

    async def work() -> None:
        if failures:
            raise failures.pop(0)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    await keep_running("memory history", work)
    assert waited == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert caplog.messages[:2] == [
        "memory history failed and starts again in 1 s: a",
        "memory history failed and starts again in 2 s: b",
    ]
    assert [record.exc_info is not None for record in caplog.records[:2]] == [True, False]


def test_no_bare_create_task() -> None:
    """A task that asyncio alone knows fails in silence."""
    names = {
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in ROOT.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Attribute) and node.attr in ("create_task", "ensure_future")
        if path != ROOT / "tasks.py"
    }
    assert names == set()
