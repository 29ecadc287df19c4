"""Where the verbs, which are plain functions, wait for what is asynchronous below."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, TypeVar

Result = TypeVar("Result")


def wait_for(work: Coroutine[Any, Any, Result]) -> Result:
    import asyncio  # 18 ms: `mmd --help` does without

    return asyncio.run(work)
