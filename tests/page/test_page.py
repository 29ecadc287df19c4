"""What the page shows, and what its buttons do, in a real browser."""

from __future__ import annotations

import asyncio
import re

import pytest
from playwright.async_api import Page, expect

from mmd.gateway.http.error import ErrorResponse
from mmd.gateway.observe.feed import EventKind
from tests.page import scene
from tests.page.stub_gateway import StubGateway, serving

QWEN = "qwen3-8b-q4_k_m"
GEMMA = "gemma-3-12b-it-qat-q4_0"
MISTRAL = "mistral-small-3.2-24b-instruct-2506-iq3_xs"
STARCODER = "starcoder2-3b-q5_k_m"
HOSTILE = "<img src=x onerror=\"document.title='taken'\"><script>document.title='taken'</script>"


def sleeping_qwen() -> dict[str, object]:
    return scene.status() | {"active": None, "resident": [], "starting": []}


async def test_shows_loaded_loading_failed_and_sleeping_models(page: Page, gateway: StubGateway) -> None:
    await page.goto(gateway.url)
    await expect(page).to_have_title(f"{QWEN} · mmd")
    first = page.locator("#resident > li").first
    await expect(first).to_contain_text("chat · llama.cpp · Q4_K_M · context 32k · weights 4.7 GiB")
    await expect(page.locator("#starting")).to_contain_text(re.compile(r"\d+\ss of about 19\ss"))
    await expect(page.locator("#starting progress")).to_have_attribute("max", "19")
    await expect(page.locator("#failed")).to_contain_text("the engine was killed for lack of memory")
    await expect(page.locator("#failed code")).to_have_text(f"mmd logs {STARCODER}")
    await expect(page.locator("#sleeping")).to_contain_text("wakes in about 1.9 s · 8.0 GiB RAM · level 1")
    await expect(page.locator("#gpus")).to_have_text("NVIDIA GeForce RTX 4070")
    await expect(page.locator("#connection")).to_have_text("Live")


async def test_shows_queue_memory_and_swaps(page: Page, gateway: StubGateway) -> None:
    await page.goto(gateway.url)
    await expect(page.locator("#turns > li").first).to_contain_text(re.compile(r"3 waiting · longest for \d+\ss"))
    await expect(page.locator("#in-flight")).to_have_text(f"In progress: {QWEN} (2).")
    await expect(page.locator("figure").first).to_contain_text("9.8 of 12.0 GiB")
    await expect(page.locator("figure").first).to_contain_text("lowest 0.6 GiB, highest 11.1 GiB")
    newest = page.locator("#swap-list > li").first
    await expect(newest).to_contain_text("drain 1.4 s · release 0.6 s · VRAM free 0.2 s · load 5.1 s · other 0.4 s")
    await expect(newest).to_contain_text(f"not loaded, replacing {GEMMA}")
    await expect(newest.locator("rect")).to_have_count(5)
    assert await page.locator("figure path.line").first.get_attribute("d")


async def test_shows_who_lies_where(page: Page, gateway: StubGateway) -> None:
    await page.goto(gateway.url)
    first = page.locator("#device-list > li").first
    await expect(first).to_contain_text("GPU 0: NVIDIA GeForce RTX 4070")
    await expect(first).to_contain_text("2.2 GiB of 12.0 GiB free")
    await expect(first.locator(".holders > li")).to_have_text(
        [
            "nomic-embed-text-v1.5-f161.0 GiB",
            f"{QWEN}7.0 GiB used8.0 GiB",
            "qwen3-4b-awqasleep1.5 GiB",
            "other programs0.9 GiB",
        ]
    )
    await expect(first.locator("rect.awake")).to_have_count(2 + 2)  # in the bar and beside the names
    await expect(page.locator("#resident > li").first).to_contain_text("8.0 GiB of GPU 0")
    await expect(page.locator("#sleeping")).to_contain_text("keeps 1.5 GiB of GPU 0")
    await expect(page.locator("#leases")).to_contain_text("4.0 GiB of GPU 1 · blender -b scene.blend -a")
    await expect(page.locator("#unloaded")).to_contain_text(f"{GEMMA} was unloaded for {QWEN}")
    await expect(page.locator("#unloaded")).to_contain_text(": the least recently used whose memory is enough")


async def test_shows_setups_and_what_they_hold(page: Page, gateway: StubGateway) -> None:
    await page.goto(gateway.url)
    rag, search = page.locator("#setup-list > li").nth(0), page.locator("#setup-list > li").nth(1)
    await expect(rag).to_contain_text("chat over my documents · weights 5.0 GiB · exposes qwen3-8b-q4_k_m")
    await expect(rag.locator(".members > li")).to_have_text([f"{QWEN}active", "nomic-embed-text-v1.5-f16resident"])
    await expect(rag.get_by_role("button", name="Activate rag")).to_be_hidden()
    await expect(search.locator(".members > li")).to_have_text(
        ["nomic-embed-text-v1.5-f16resident", "bge-reranker-v2-m3-q8_0absent"]
    )
    await expect(page.locator("#models tbody")).to_have_count(7)
    await rag.get_by_role("button", name="Sleep rag").click()
    await search.get_by_role("button", name="Activate search").click()
    await expect(search.get_by_role("button", name="Activate search")).to_have_attribute("aria-disabled", "false")
    assert gateway.pressed == [("sleep", "rag"), ("activate", "search")]


async def test_setup_that_cannot_be_activated_says_why(page: Page, gateway: StubGateway) -> None:
    broken = scene.setups()[1] | {"models": ["gone", HOSTILE], "problem": f"no model is called {HOSTILE}"}
    gateway.records["/models"] = [*scene.models(), broken]
    await page.goto(gateway.url)
    card = page.locator("#setup-list > li")
    await expect(card.locator(".failure").first).to_have_text(f"no model is called {HOSTILE}")
    await expect(card.locator(".members > li").first).to_have_text("gonenot registered")
    await expect(card.get_by_role("button")).to_have_count(0)
    await expect(page).to_have_title(f"{QWEN} · mmd")


async def test_gateway_without_setups_has_no_panel_for_them(page: Page, gateway: StubGateway) -> None:
    gateway.records["/models"] = scene.models()
    await page.goto(gateway.url)
    await expect(page.locator("#models tbody")).to_have_count(7)
    await expect(page.locator("#setups")).to_be_hidden()


async def test_stranded_engine_is_shown_and_can_be_stopped(page: Page, gateway: StubGateway) -> None:
    gateway.records["/status"]["stranded"] = [{"id": "s", "devices": {"GPU-1": 3 * scene.GIB}}]
    await page.goto(gateway.url)
    await expect(page.locator("#stranded")).to_contain_text("awake without its token")
    await expect(page.locator("#stranded")).to_contain_text("3.0 GiB of GPU 0")
    await expect(page.locator("#announcement")).to_contain_text("s is stranded.")
    await page.locator("#stranded").get_by_role("button", name="Stop s").click()
    await expect(page.locator("#device-list > li").first).to_contain_text("stranded")
    assert gateway.pressed == [("stop", "s")]


async def test_lease_can_be_ended(page: Page, gateway: StubGateway, complaints: list[str]) -> None:
    gateway.failing["end"] = ErrorResponse(404, "there is no lease blender", "mmd status", "no_such_lease")
    await page.goto(gateway.url)
    end = page.get_by_role("button", name="End the lease blender")
    await end.click()
    await expect(page.locator("#leases").get_by_role("alert")).to_contain_text("there is no lease blender")
    gateway.failing.clear()
    await end.click()
    await expect(end).to_have_attribute("aria-disabled", "true")
    gateway.tell(EventKind.STATUS, scene.status() | {"leases": []})
    await expect(page.locator("#leases > li")).to_have_count(0)
    assert gateway.pressed == [("end", "blender")] * 2
    forgive(complaints, "404")


async def test_swap_shows_why_each_model_left(page: Page, gateway: StubGateway) -> None:
    await page.goto(gateway.url)
    gateway.tell(EventKind.SWAP, scene.swap("new", 0, evicted=["a", "b"], why_evicted={"a": "in use"}))
    await expect(page.locator("#swap-list > li").first).to_contain_text("replacing a (in use), b")


async def test_follows_what_happens(page: Page, gateway: StubGateway) -> None:
    await page.goto(gateway.url)
    await expect(page).to_have_title(f"{QWEN} · mmd")
    gateway.records["/models"] = [record | {"status": "absent"} for record in scene.models()]
    gateway.tell(EventKind.STATUS, sleeping_qwen())
    await expect(page).to_have_title("mmd")
    await expect(page.locator("#none-resident")).to_be_visible()
    await expect(page.locator("#announcement")).to_contain_text("No model is active.")
    await expect(page.locator("#models .state.absent")).to_have_count(7)
    gateway.tell(EventKind.QUEUE, {"turns": [], "in_flight": []})
    await expect(page.locator("#in-flight")).to_have_text("No requests are waiting. None are in progress.")
    gateway.tell(EventKind.SWAP, scene.swap("new", 0, seconds=40.0, phases={"load": 40.0}))
    await expect(page.locator("#swap-list > li").first).to_contain_text("new")
    await expect(page.locator("#scale")).to_contain_text("40 s")
    gateway.tell(EventKind.RESOURCES, scene.resources() | {"vram": {"used_bytes": 3 * scene.GIB, "total_bytes": 2**34}})
    await expect(page.locator("figure").first).to_contain_text("3.0 of 16.0 GiB")


async def test_button_asks_the_gateway_and_rests_until_it_is_done(page: Page, gateway: StubGateway) -> None:
    gateway.held["sleep"] = asyncio.Event()
    await page.goto(gateway.url)
    row = page.locator("#models tbody", has_text=QWEN)
    sleep = row.get_by_role("button", name=f"Sleep {QWEN}")
    await sleep.click()
    await expect(sleep).to_have_text("Going to sleep…")
    await expect(sleep).to_have_attribute("aria-disabled", "true")
    await expect(row.get_by_role("button", name=f"Stop {QWEN}")).to_have_attribute("aria-disabled", "true")
    await sleep.click(force=True)
    gateway.records["/models"][0]["status"] = "sleeping"
    gateway.tell(EventKind.STATUS, sleeping_qwen())
    gateway.held["sleep"].set()
    activate = row.get_by_role("button", name=f"Activate {QWEN}")
    await expect(activate).to_be_visible()
    await expect(activate).to_be_focused()  # the focused button is gone
    assert gateway.pressed == [("sleep", QWEN)]


async def test_what_takes_long_can_be_stopped(page: Page, gateway: StubGateway) -> None:
    gateway.held["activate"] = asyncio.Event()
    await page.goto(gateway.url)
    row = page.locator("#models tbody", has_text=GEMMA)
    await row.get_by_role("button", name="Activate").click()
    await expect(row.get_by_role("button", name="Activate")).to_have_text("Activating…")
    await row.get_by_role("button", name="Stop").click()
    await expect(page.locator("#models").get_by_role("button", name=f"Stop {GEMMA}")).to_have_text("Stop")
    gateway.held["activate"].set()
    await expect(row.get_by_role("button", name="Activate")).to_have_text("Activate")
    assert gateway.pressed == [("activate", GEMMA), ("stop", GEMMA)]


async def test_error_is_shown_where_it_was_made(page: Page, gateway: StubGateway, complaints: list[str]) -> None:
    gateway.failing["activate"] = ErrorResponse(503, "it does not fit", "mmd show ID --context 4096", "does_not_fit")
    await page.goto(gateway.url)
    row = page.locator("#models tbody", has_text="bge-reranker")
    await row.get_by_role("button").click()
    await expect(row.get_by_role("alert").locator("p")).to_have_text(["it does not fit", "mmd show ID --context 4096"])
    gateway.failing.clear()
    await row.get_by_role("button").click()
    await expect(row.get_by_role("alert").locator("p")).to_have_count(0)
    forgive(complaints, "503")


async def test_engine_that_failed_has_said_why(page: Page, gateway: StubGateway, complaints: list[str]) -> None:
    lines = ("loading", HOSTILE)
    gateway.failing["activate"] = ErrorResponse(503, "it failed", "mmd logs ID", "engine_failed", engine_lines=lines)
    await page.goto(gateway.url)
    said = page.locator("#failed .last-lines:visible, #swap-list .last-lines:visible")
    await expect(said).to_have_count(2)
    for each in await said.all():
        await each.locator("summary").click()
        await expect(each.locator("pre")).to_have_text("load_tensors: offloading 31 layers\nCUDA error: out of memory")
    row = page.locator("#models tbody", has_text="bge-reranker")
    await expect(row.locator("summary")).to_be_hidden()
    await row.get_by_role("button").click()
    await row.locator("summary").click()
    await expect(row.locator("pre")).to_have_text("\n".join(lines))
    gateway.failing.clear()
    await row.get_by_role("button").click()
    await expect(row.locator("summary")).to_be_hidden()
    gateway.tell(EventKind.SWAP, scene.swap(STARCODER, 0))
    await expect(page.locator("#failed .last-lines:visible")).to_have_count(0)  # an earlier failure
    forgive(complaints, "503")


async def test_swap_that_is_told_twice_is_shown_once(page: Page, gateway: StubGateway) -> None:
    await page.goto(gateway.url)
    await expect(page.locator("#swap-list > li")).to_have_count(5)
    for number in range(15):
        gateway.tell(EventKind.SWAP, scene.swap(f"m{number}", 0))
    for _ in range(2):
        gateway.tell(EventKind.SWAP, gateway.records["/swaps"][-1])
    gateway.tell(EventKind.QUEUE, {"turns": [], "in_flight": []})
    await expect(page.locator("#in-flight")).to_contain_text("No requests are waiting.")
    await expect(page.locator("#swap-list > li")).to_have_count(20)


async def test_downloads_are_shown_and_cancelled(page: Page, gateway: StubGateway, complaints: list[str]) -> None:
    await page.goto(gateway.url)
    jobs = page.locator("#download-list > li")
    await expect(jobs.locator(".state")).to_have_text(["running", "queued", "failed", "done"])
    await expect(jobs.nth(0)).to_contain_text(re.compile(r"3\.0 of 9\.0\sGiB · 25\.0\sMiB/s · 4\smin 6\ss left"))
    await expect(jobs.nth(2).get_by_role("alert").locator("p")).to_have_text(["the disk is full", "mmd disk"])
    await expect(jobs.nth(3)).to_contain_text("registered as qwen3-4b-awq")
    gateway.tell_download(scene.download("3", done_bytes=6 * scene.GIB))
    await expect(jobs.nth(0)).to_contain_text("6.0 of 9.0")
    assert await jobs.nth(0).locator("progress").evaluate("bar => bar.position") == pytest.approx(2 / 3)
    cancel = jobs.nth(0).get_by_role("button")
    gateway.failing["cancel"] = ErrorResponse(503, "not now", "try again", "x")
    await cancel.click()
    await expect(jobs.nth(0).get_by_role("alert").locator("p")).to_have_text(["not now", "try again"])
    gateway.failing.clear()
    gateway.held["cancel"] = asyncio.Event()
    await cancel.click()
    await expect(cancel).to_have_attribute("aria-disabled", "true")
    await cancel.click(force=True)
    gateway.held["cancel"].set()
    cancelled = jobs.filter(has_text="cancelled")
    await expect(cancelled.locator("h3")).to_be_focused()  # the focused button is gone
    await expect(cancelled.get_by_role("button")).to_be_hidden()
    assert gateway.pressed == [("cancel", "3"), ("cancel", "3")]
    forgive(complaints, "503")


async def test_model_that_has_been_downloaded_is_there(page: Page, gateway: StubGateway) -> None:
    await page.goto(gateway.url)
    await expect(page.locator("#models tbody")).to_have_count(7)
    gateway.records["/models"] = [*scene.models(), scene.models()[0] | {"id": "new", "status": "absent"}]
    gateway.tell_download(scene.download("3", state="done", model="new"))
    await expect(page.locator("#models tbody")).to_have_count(8)
    await expect(page.locator("#download-list")).to_contain_text("registered as new")


async def test_button_says_that_the_gateway_is_gone(page: Page, complaints: list[str]) -> None:
    async with serving(StubGateway()) as gone:
        await page.goto(gone.url)
        await expect(page.locator("#connection")).to_have_text("Live")
    row = page.locator("#models tbody", has_text=GEMMA)
    await row.get_by_role("button", name="Activate").click()
    await expect(row.get_by_role("alert")).to_contain_text("the gateway does not respond")
    await expect(row.get_by_role("button", name="Activate")).to_have_text("Activate")
    await page.goto("about:blank")
    forgive(complaints, "net::ERR")


async def test_works_by_keyboard_alone(page: Page, gateway: StubGateway) -> None:
    gateway.held["activate"] = asyncio.Event()
    await page.goto(gateway.url)
    await expect(page.locator("#swap-list > li")).to_have_count(5)
    controls = page.locator("button:visible, summary:visible, [role=slider]:visible")
    in_order = [await control.get_attribute("aria-label") for control in await controls.all()]
    reached = []
    for _ in in_order:
        await page.keyboard.press("Tab")
        reached.append(await page.evaluate("document.activeElement.getAttribute('aria-label')"))
    assert reached == in_order
    assert f"Activate {GEMMA}" in reached
    activate = page.locator("#models").get_by_role("button", name=f"Activate {GEMMA}")
    await activate.focus()
    await page.keyboard.press("Enter")
    await expect(activate).to_have_text("Activating…")
    await expect(activate).to_be_focused()
    assert gateway.pressed == [("activate", GEMMA)]
    gateway.held["activate"].set()


async def test_memory_of_a_moment_by_keyboard_and_pointer(page: Page, gateway: StubGateway) -> None:
    await page.goto(gateway.url)
    plot = page.get_by_role("slider", name="VRAM over the last hour")
    await plot.focus()
    await expect(plot).to_have_attribute("aria-valuetext", re.compile(r"^\d\d:\d\d:\d\d: 9\.8\sGiB of 12\.0\sGiB$"))
    await page.keyboard.press("Home")
    await expect(plot).to_have_attribute("aria-valuetext", re.compile(r": 0\.6\sGiB of"))
    await expect(page.locator(".readout").first).to_contain_text("0.6 GiB")
    await page.keyboard.press("ArrowRight")
    await expect(plot).to_have_attribute("aria-valuenow", "1")
    await plot.blur()
    await expect(page.locator(".readout").first).to_be_empty()
    await plot.hover(position={"x": 100, "y": 40})
    await expect(page.locator(".readout").first).to_contain_text("11.1 GiB")
    await expect(page.locator(".cross").first).to_have_attribute("visibility", "visible")


async def test_command_that_shows_why_is_copied(page: Page, gateway: StubGateway) -> None:
    await page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    await page.goto(gateway.url)
    await page.get_by_role("button", name=f"Copy mmd logs {STARCODER}").click()
    await expect(page.locator("#failed")).to_contain_text("Copied")
    assert await page.evaluate("navigator.clipboard.readText()") == f"mmd logs {STARCODER}"


async def test_start_of_unknown_length_has_no_end(page: Page, gateway: StubGateway) -> None:
    gateway.records["/status"]["starting"][0]["expected_seconds"] = None
    await page.goto(gateway.url)
    await expect(page.locator("#starting")).to_contain_text(re.compile(r"for \d+\ss"))
    assert await page.locator("#starting progress:indeterminate").count() == 1


async def test_focus_stays_when_records_are_replaced(page: Page, gateway: StubGateway) -> None:
    await page.goto(gateway.url)
    stop = page.locator("#resident").get_by_role("button", name=f"Stop {QWEN}")
    await stop.focus()
    gateway.tell(EventKind.STATUS, scene.status() | {"failed": []})
    await expect(page.locator("#failed > li")).to_have_count(0)
    await expect(stop).to_be_focused()
    gateway.tell(EventKind.STATUS, scene.status() | {"active": "nomic-embed-text-v1.5-f16"})  # now the first
    await expect(page).to_have_title("nomic-embed-text-v1.5-f16 · mmd")
    await expect(stop).to_be_focused()


async def test_hostile_names_are_text(page: Page, gateway: StubGateway) -> None:
    gateway.records["/models"][0]["id"] = HOSTILE
    gateway.records["/status"] = scene.status() | {
        "active": HOSTILE,
        "resident": [scene.resident(HOSTILE)],
        "failed": [{"id": HOSTILE, "reason": HOSTILE}],
        "leases": [{"name": HOSTILE, "state": "held", "program": HOSTILE, "devices": {HOSTILE: 1}}],
        "unloaded": [
            {"id": HOSTILE, "unloaded_for": HOSTILE, "why": HOSTILE, "at": scene.status()["unloaded"][0]["at"]}
        ],
        "devices": [scene.status()["devices"][0] | {"name": HOSTILE}],
    }
    gateway.records["/queue"] = {
        "turns": [{"model": HOSTILE, "waiting": 1, "waited_seconds": 1, "expected_seconds": 1, "waits_for": []}],
        "in_flight": [{"model": HOSTILE, "requests": 1}],
    }
    gateway.records["/swaps"] = [
        scene.swap(HOSTILE, 1, evicted=[HOSTILE], cause=HOSTILE, outcome=HOSTILE, engine_lines=[HOSTILE])
    ]
    error = {"message": HOSTILE, "hint": "<b>hint</b>"}
    gateway.records["/hf/downloads"] = [
        scene.download("1", repo=HOSTILE, file=HOSTILE, state="failed", error=error),
        scene.download("2", repo=HOSTILE, file=HOSTILE, state="done", model=HOSTILE),
    ]
    await page.goto(gateway.url)
    await expect(page.locator("#resident h3")).to_have_text(HOSTILE)
    await expect(page.locator("#models .name").first).to_have_text(HOSTILE)
    await expect(page.locator("#swap-list")).to_contain_text(f"{HOSTILE}, replacing {HOSTILE}")
    await expect(page.locator("#download-list h3").first).to_have_text(f"{HOSTILE}: {HOSTILE}")
    await expect(page.locator("#swap-list pre")).to_have_text(HOSTILE)
    await expect(page.locator("body img, body script, body b")).to_have_count(0)
    await expect(page).to_have_title(f"{HOSTILE} · mmd")
    quoted = HOSTILE.replace("'", "'\\''")
    await expect(page.locator("#failed code")).to_have_text(f"mmd logs '{quoted}'")


async def test_comes_back_after_the_gateway_was_away(page: Page, complaints: list[str]) -> None:
    async with serving(StubGateway()) as first:
        await page.goto(first.url)
        await expect(page.locator("#connection")).to_have_text("Live")
    await expect(page.locator("#connection")).to_have_text("Connection lost. Reconnecting…")
    second = StubGateway()
    second.records["/status"] = sleeping_qwen()
    async with serving(second, first.port):
        await expect(page.locator("#connection")).to_have_text("Live", timeout=20_000)
        await expect(page).to_have_title("mmd")
        await page.goto("about:blank")
    forgive(complaints, "net::ERR")


@pytest.mark.parametrize("has_events", [True, False])
async def test_does_with_what_an_older_gateway_has(
    page: Page, gateway: StubGateway, complaints: list[str], has_events: bool
) -> None:
    gateway.missing = {"/queue", "/resources/history", "/swaps", "/hf/downloads"}
    if not has_events:
        gateway.missing.add("/events")
    await page.goto(gateway.url)
    await expect(page.locator("#connection")).to_have_text("Live" if has_events else "Updated every 5 s")
    await expect(page.locator("#models tbody")).to_have_count(7)
    await expect(page.locator("figure").first).to_contain_text("9.8 of 12.0 GiB")
    await expect(page.locator("#swaps")).to_be_hidden()
    if not has_events:
        await expect(page.locator("#queue")).to_be_hidden()
    forgive(complaints, "404")


async def test_asks_for_a_key_where_one_is_needed(page: Page, gateway: StubGateway, complaints: list[str]) -> None:
    gateway.key = "mmd-secret"
    await page.goto(gateway.url)
    await expect(page.get_by_label("API key")).to_be_focused()
    await expect(page.locator("#key-reason")).to_contain_text("the gateway needs an API key")
    await expect(page.locator("#models")).to_be_hidden()
    await page.keyboard.type("mmd-wrong")
    await page.keyboard.press("Enter")
    await expect(page.get_by_label("API key")).to_be_focused()
    await page.get_by_label("API key").fill("mmd-secret")
    await page.keyboard.press("Enter")
    await expect(page).to_have_title(f"{QWEN} · mmd")
    await expect(page.locator("#key")).to_be_hidden()
    await page.locator("#models").get_by_role("button", name=f"Sleep {QWEN}").click()
    await expect(page.locator("#models").get_by_role("button", name=f"Sleep {QWEN}")).to_have_text("Sleep")
    await expect(page.locator("#models .failure p")).to_have_count(0)
    await page.reload()
    await expect(page).to_have_title(f"{QWEN} · mmd")
    forgive(complaints, "401")


def forgive(complaints: list[str], *about: str) -> None:
    """Drop the error responses that browsers log; other complaints stay."""
    complaints[:] = [complaint for complaint in complaints if not any(words in complaint for words in about)]
