"""A gateway over two fake engines, and a client of its management API. A test module may replace `running`."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest

from tests.gateway_peer import PATIENCE_SECONDS, Harness, harness


@pytest.fixture
async def running() -> AsyncIterator[Harness]:
    async with harness("a", "b") as running:
        yield running


@pytest.fixture
async def http(running: Harness) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=running.url, timeout=PATIENCE_SECONDS) as http:
        yield http
