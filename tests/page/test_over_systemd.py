"""The page over the installed gateway, real units and fake engines: mmd makes the records from systemd."""

from __future__ import annotations

import re

import pytest
from playwright.async_api import Page, expect

from mmd.paths import config_file
from tests.page.test_page import forgive
from tests.systemd.conftest import address, installed, world
from tests.systemd.world import World

__all__ = ["address", "installed", "world"]  # fixtures

pytestmark = pytest.mark.manager


async def test_swaps_and_says_what_became_of_them(
    page: Page, world: World, installed: str, complaints: list[str]
) -> None:
    world.add("a", "b", "broken")
    world.behave("broken", exit_at_once={"status": 1, "stderr": "error: unknown model architecture: 'gronk'"})
    await page.goto(installed)
    models, swaps = page.locator("#models"), page.locator("#swap-list > li")
    await expect(page.locator("#connection")).to_have_text("Live")
    await expect(page.locator("#no-swaps")).to_be_visible()
    await models.get_by_role("button", name="Activate a").click()
    await expect(page).to_have_title("a · mmd")
    await expect(swaps.first).to_contain_text(re.compile(r"load \d+"))
    await models.get_by_role("button", name="Activate b", exact=True).click()
    await expect(page).to_have_title("b · mmd")
    await expect(swaps.first).to_contain_text("replacing a")
    await models.get_by_role("button", name="Activate broken").click()
    await expect(models.get_by_role("alert").filter(has_text="gronk")).to_be_visible()
    await expect(page.locator("#swap-list .failed")).to_have_count(1)
    await expect(swaps.first.locator("pre")).to_contain_text("error: unknown model architecture: 'gronk'")
    await expect(models.locator("tbody", has_text="broken").locator("pre")).to_contain_text("gronk")
    await page.locator("#resident").get_by_role("button", name="Stop b").click()
    await expect(page.locator("#none-resident")).to_be_visible()
    await page.goto("about:blank")
    forgive(complaints, "503")


async def test_setup_is_activated_and_put_to_sleep(page: Page, world: World, installed: str) -> None:
    settings = config_file().read_text().replace('residency = "one"', 'residency = "many"')
    config_file().write_text(f'{settings}\n[setups.rag]\nmodels = ["a", "b"]\nnote = "chat and search"\n')
    world.add("a", "b", "c")
    await page.goto(installed)
    card = page.locator("#setup-list > li")
    await expect(card).to_contain_text("chat and search")
    await expect(card.locator(".members .state")).to_have_text(["absent", "absent"])
    await card.get_by_role("button", name="Activate rag").click()
    await expect(card.locator(".members .state")).to_have_text(["active", "resident"])
    await expect(page.locator("#resident > li")).to_have_count(2)
    await card.get_by_role("button", name="Sleep rag").click()
    await expect(card.locator(".members .state")).to_have_text(["absent", "absent"])
    await expect(page.locator("#none-resident")).to_be_visible()
    assert sorted(world.events("ready")) == [("ready", "a"), ("ready", "b")]
    await page.goto("about:blank")  # before the gateway ends


async def test_shows_two_residents_on_their_devices(page: Page, world: World, installed: str) -> None:
    """The chat model stays the active one: an embedding model answers no request without a name."""
    world.add_gpus(24, 16)
    world.add_sized("chat", 12)
    world.add_sized("embed", 1, embedding=True)
    await page.goto(installed)
    models, devices = page.locator("#models"), page.locator("#device-list > li")
    await models.get_by_role("button", name="Activate chat").click()
    await expect(page).to_have_title("chat · mmd")
    await models.get_by_role("button", name="Activate embed").click()
    await expect(page.locator("#resident > li")).to_have_count(2)
    await expect(page).to_have_title("chat · mmd")
    await expect(devices).to_have_count(3)  # and the RAM
    await expect(devices.filter(has_text=re.compile(r"chat.*GiB used"))).to_have_count(1)
    await expect(devices.filter(has_text=re.compile(r"embed.*GiB used"))).to_have_count(1)
    await expect(page.locator("#resident > li").last).to_contain_text(re.compile(r"GiB of GPU \d"))
    await page.goto("about:blank")
