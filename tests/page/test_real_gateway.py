"""The page as the gateway itself serves it, over what the gateway itself says."""

from __future__ import annotations

from playwright.async_api import Page, expect

from tests.gateway_peer import PATIENCE_SECONDS, town
from tests.page.test_page import forgive

_PATIENCE_MS = PATIENCE_SECONDS * 1000


async def test_activates_and_stops(page: Page, complaints: list[str]) -> None:
    async with town("a", "b") as running:
        await page.goto(running.url)
        await expect(page).to_have_title("a · mmd")
        await page.locator("#models").get_by_role("button", name="Activate b").click()
        await expect(page).to_have_title("b · mmd")
        await expect(page.locator("#announcement")).to_have_text("b is active.")
        stop = page.locator("#models").get_by_role("button", name="Stop b")
        await expect(stop).to_be_visible(timeout=_PATIENCE_MS)
        await stop.click()
        await expect(page.locator("#nobody")).to_be_visible()
        assert running.models.log == ["activate b", "ready b", "stop b"]
        await page.goto("about:blank")
    forgive(complaints, "404")
