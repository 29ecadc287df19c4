"""One headless Chromium for all tests of the page; a gateway and a tab for each. Console errors fail a test."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser, ConsoleMessage, Page, async_playwright, expect

from tests.gateway_peer import PATIENCE_SECONDS
from tests.page.stub_gateway import StubGateway, serving

expect.set_options(timeout=PATIENCE_SECONDS * 1000)

_CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All tests share the event loop of the browser's connection."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.asyncio(loop_scope="session"), append=False)
            item.add_marker(pytest.mark.browser)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Browser]:
    if _CHROMIUM is None:
        pytest.skip("the page is tested in Chromium: apt-get install --no-install-recommends chromium")
    # It leaves files in its home, and its sandbox does not work as root.
    home: dict[str, str | float | bool] = {"HOME": str(tmp_path_factory.mktemp("chromium"))}
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=_CHROMIUM, args=["--no-sandbox"], env=home)
        yield browser
        await browser.close()


@pytest_asyncio.fixture(autouse=True, loop_scope="session")
async def executor() -> AsyncIterator[None]:
    """The event loop outlives each test, so its threads must end with the test that started them."""
    with ThreadPoolExecutor() as executor:
        asyncio.get_running_loop().set_default_executor(executor)
        yield


@pytest_asyncio.fixture(loop_scope="session")
async def gateway() -> AsyncIterator[StubGateway]:
    async with serving(StubGateway()) as gateway:
        yield gateway


@pytest_asyncio.fixture(loop_scope="session")
async def page(browser: Browser, gateway: StubGateway, complaints: list[str]) -> AsyncIterator[Page]:
    """An empty tab of 1400 by 1000 pixels, closed before the gateway. Unread complaints fail the test."""
    context = await browser.new_context(viewport={"width": 1400, "height": 1000})
    page = await context.new_page()
    page.on("console", lambda message: complaints.extend(_complaint(message)))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    yield page
    await context.close()
    assert not complaints


@pytest.fixture
def complaints() -> list[str]:
    """Errors in the browser's console, violations of the content security policy included."""
    return []


def _complaint(message: ConsoleMessage) -> list[str]:
    return [f"{message.type}: {message.text}"] if message.type in ("error", "warning") else []
