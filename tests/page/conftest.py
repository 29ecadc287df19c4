"""One headless Chromium for all tests of the page, and for each test a gateway and a tab that must not complain."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser, ConsoleMessage, Page, async_playwright, expect

from tests.gateway_peer import PATIENCE_SECONDS
from tests.page.stub_gateway import StubGateway, serving

expect.set_options(timeout=PATIENCE_SECONDS * 1000)

_CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All tests share the loop to which the browser's connection belongs."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.asyncio(loop_scope="session"), append=False)
            item.add_marker(pytest.mark.browser)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Browser]:
    if _CHROMIUM is None:
        pytest.skip("the page is tested in Chromium: apt-get install --no-install-recommends chromium")
    # A home of its own: it leaves files there. And root can have no sandbox.
    home: dict[str, str | float | bool] = {"HOME": str(tmp_path_factory.mktemp("chromium"))}
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=_CHROMIUM, args=["--no-sandbox"], env=home)
        yield browser
        await browser.close()


@pytest_asyncio.fixture(loop_scope="session")
async def gateway() -> AsyncIterator[StubGateway]:
    async with serving(StubGateway()) as gateway:
        yield gateway


@pytest_asyncio.fixture(loop_scope="session")
async def page(browser: Browser, gateway: StubGateway, complaints: list[str]) -> AsyncIterator[Page]:
    """An empty tab of 1400 by 1000 pixels; it fails the test that leaves a complaint unread. It closes before the
    gateway.
    """
    context = await browser.new_context(viewport={"width": 1400, "height": 1000})
    page = await context.new_page()
    page.on("console", lambda message: complaints.extend(_complaint(message)))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    yield page
    await context.close()
    assert not complaints


@pytest.fixture
def complaints() -> list[str]:
    """Errors of the browser's console, and violations of the policy."""
    return []


def _complaint(message: ConsoleMessage) -> list[str]:
    return [f"{message.type}: {message.text}"] if message.type in ("error", "warning") else []
