"""The look of the page: pictures for people, and what can be measured."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

import pytest
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Browser, Page, expect

from tests.page import scene
from tests.page.stub_gateway import StubGateway

Scheme = Literal["light", "dark"]

_OVERFLOW = "document.scrollingElement.scrollWidth - document.scrollingElement.clientWidth"


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """The folder of the pictures: MMD_TEST_PICTURES keeps them."""
    folder = Path(os.environ.get("MMD_TEST_PICTURES", tmp_path))
    folder.mkdir(exist_ok=True)
    return folder


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 800, 1400])
async def test_fits_its_window(page: Page, gateway: StubGateway, pictures: Path, scheme: Scheme, width: int) -> None:
    await page.set_viewport_size({"width": width, "height": 900})
    await page.emulate_media(color_scheme=scheme)
    await page.goto(gateway.url)
    await expect(page.locator("#swap-list > li")).to_have_count(5)
    (pictures / f"{scheme}-{width}.png").write_bytes(await page.screenshot(full_page=True))
    assert await page.evaluate(_OVERFLOW) == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_everybody_can_use_it(browser: Browser, gateway: StubGateway, scheme: Scheme) -> None:
    """axe-core's rules, contrast among them. The test injects it, which the page's own policy would not allow."""
    context = await browser.new_context(color_scheme=scheme, bypass_csp=True)
    page = await context.new_page()
    await page.goto(gateway.url)
    await expect(page.locator("#swap-list > li")).to_have_count(5)
    found = await Axe().run(page)
    await context.close()
    assert not found.violations_count, found.generate_report()


async def test_names_that_cannot_be_broken_fit_too(page: Page, gateway: StubGateway) -> None:
    name = "x" * 96
    gateway.records["/models"][0]["id"] = name
    gateway.records["/status"] |= {
        "active": name,
        "resident": [scene.resident(name)],
        "failed": [{"id": name, "reason": name}],
        "leases": [{"name": name, "state": "held", "program": name, "devices": {"GPU-1": scene.GIB}}],
    }
    gateway.records["/queue"]["turns"][0]["model"] = name
    gateway.records["/queue"]["in_flight"][0]["model"] = name
    gateway.records["/swaps"][0] |= {"model": name, "evicted": [name], "cause": name, "engine_lines": [name]}
    gateway.records["/hf/downloads"][0] |= {"repo": name, "model": name}
    await page.set_viewport_size({"width": 360, "height": 900})
    await page.goto(gateway.url)
    await expect(page.locator("#swap-list > li").last).to_contain_text(name)
    assert await page.evaluate(_OVERFLOW) == 0
