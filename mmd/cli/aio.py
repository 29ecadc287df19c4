"""Run coroutines from the verbs, which are plain functions."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, TypeVar

Result = TypeVar("Result")


def wait_for(work: Coroutine[Any, Any, Result]) -> Result:
    import asyncio  # 18 ms, which `mmd --help` does not need

    return asyncio.run(work)
