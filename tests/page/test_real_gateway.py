"""The page as the gateway itself serves it, over what the gateway itself says."""

from __future__ import annotations

from playwright.async_api import Page, expect

from tests.gateway_peer import harness, until


async def test_activates_and_stops(page: Page) -> None:
    async with harness("a", "b") as running:
        await page.goto(running.url)
        await expect(page).to_have_title("a · mmd")
        await page.locator("#models").get_by_role("button", name="Activate b").click()
        await expect(page).to_have_title("b · mmd")
        await expect(page.locator("#announcement")).to_have_text("b is active.")
        stop = page.locator("#models").get_by_role("button", name="Stop b")
        await expect(stop).to_be_visible()
        await stop.click()
        await expect(page.locator("#none-resident")).to_be_visible()
        assert running.models.log == ["activate b", "ready b", "stop b"]
        await page.goto("about:blank")


async def test_hears_what_others_do(page: Page) -> None:
    async with harness("a") as running:
        await page.goto(running.url)
        await expect(page).to_have_title("a · mmd")
        await expect(page.locator("#connection")).to_have_text("Live")
        running.models.swapped_away("a")
        await expect(page).to_have_title("mmd")
        await page.goto("about:blank")


async def test_listens_only_while_the_tab_is_visible(page: Page) -> None:
    """Hidden tabs would use up the connections that a browser opens to one server."""
    async with harness("a") as running:
        await page.goto(running.url)
        await expect(page.locator("#connection")).to_have_text("Live")
        await _hide(page, True)
        await until(lambda: not running.gateway.feed.has_listeners)
        running.models.swapped_away("a")
        await expect(page).to_have_title("a · mmd")
        await _hide(page, False)
        await expect(page).to_have_title("mmd")
        await page.goto("about:blank")


async def _hide(page: Page, hidden: bool) -> None:
    await page.evaluate(
        """hidden => {
            Object.defineProperty(document, "hidden", { value: hidden, configurable: true });
            document.dispatchEvent(new Event("visibilitychange"));
        }""",
        hidden,
    )
