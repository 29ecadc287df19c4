"""Search and downloads over HTTP, with huggingface_hub itself in its child process against a hub on this machine."""

from __future__ import annotations

import asyncio
import os
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
import pytest

from mmd.gateway.observe.feed import EventKind, Feed
from mmd.registry.hub.partial import done_bytes
from mmd.registry.store import Registry
from tests.fakes.hub import COMMIT, TOKEN, FakeHub, FakeRepository
from tests.gateway_peer import PATIENCE_SECONDS, Harness, harness, until
from tests.tiny_models import tiny_folder, tiny_gguf

_LARGE = bytes(1 << 20)


@pytest.fixture
def weights(tmp_path: Path) -> bytes:
    return tiny_gguf(tmp_path / "tiny.gguf").read_bytes()


async def ended(feed: Feed, http: httpx.AsyncClient, job: dict[str, Any]) -> dict[str, Any]:
    """The job's record once it has ended."""
    with feed.subscribe() as subscription:
        job = (await http.get(f"/hf/downloads/{job['id']}")).json()
        async with asyncio.timeout(3 * PATIENCE_SECONDS):
            async for notice in subscription:
                if job["state"] in ("done", "failed", "cancelled"):
                    break
                if notice.kind is EventKind.DOWNLOAD and notice.data["id"] == job["id"]:
                    job = dict(notice.data)
                if job["state"] in ("done", "failed", "cancelled"):
                    break
    return job


def begun_bytes(content: bytes) -> int:
    """How much has come of a file of me/tiny."""
    digest = sha256(content).hexdigest()
    blobs = Path.home() / ".cache/huggingface/hub/models--me--tiny/blobs"
    return done_bytes(blobs / f"{digest}.mmd.incomplete", len(content))


def content_of(path: str) -> bytes:
    return Path(path).read_bytes()


def names_in(folder: str) -> set[str]:
    return {path.name for path in Path(folder).rglob("*") if path.is_file()}


def children_that_download() -> list[str]:
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text("ascii").split()
    return [
        pid for pid in children if "mmd.control.models.hub_process" in Path(f"/proc/{pid}/cmdline").read_text("utf-8")
    ]


async def until_held(hub: FakeHub) -> None:
    assert await asyncio.to_thread(hub.held.wait, PATIENCE_SECONDS)


async def start(http: httpx.AsyncClient, **received: str) -> dict[str, Any]:
    response = await http.post("/hf/download", json=received)
    assert response.status_code == 202, response.text
    job: dict[str, Any] = response.json()
    return job


async def test_search(hub: FakeHub, http: httpx.AsyncClient) -> None:
    hub.repositories = {
        "me/tiny-GGUF": FakeRepository({"tiny-Q8_0.gguf": bytes(5000)}, downloads=5),
        "me/tinier-GGUF": FakeRepository({"tinier-Q8_0.gguf": bytes(5000)}, downloads=7, gated=True),
        "me/tiny-onnx": FakeRepository({"tiny.onnx": b""}, tags=("onnx",), downloads=99),
    }
    found = (await http.get("/hf/search", params={"q": "tin"})).json()
    assert [(one["id"], one["recommended_file"], one["gated"]) for one in found] == [
        ("me/tinier-GGUF", "tinier-Q8_0.gguf", True),
        ("me/tiny-GGUF", "tiny-Q8_0.gguf", False),
    ]
    assert found[0]["updated"].startswith("2026-11-01T10:00:00")
    assert len((await http.get("/hf/search", params={"q": "tin", "limit": "1"})).json()) == 1
    (open_to_all,) = (await http.get("/hf/search", params={"q": "tin", "gated": "false", "type": "chat"})).json()
    assert open_to_all["id"] == "me/tiny-GGUF"


@pytest.mark.parametrize(
    "query",
    [
        *("", "?q=", "?q=a&limit=0", "?q=a&limit=x", "?q=a&limit=1000", "?q=--help"),
        *("?q=a&type=poem", "?q=a&size=7", "?q=a&gated=yes", "?q=a&licence="),
    ],
)
async def test_search_for_nonsense(http: httpx.AsyncClient, query: str) -> None:
    assert (await http.get(f"/hf/search{query}")).status_code == 400


async def test_a_hub_that_does_not_answer(
    hub: FakeHub, http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.refuse_with = 429
    refused = await http.get("/hf/search", params={"q": "tiny"})
    assert (refused.status_code, "hf auth login" in refused.json()["error"]["hint"]) == (503, True)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    offline = (await http.get("/hf/search", params={"q": "tiny"})).json()["error"]
    assert "unset HF_HUB_OFFLINE" in offline["hint"]
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    unreachable = (await http.get("/hf/search", params={"q": "tiny"})).json()["error"]
    assert unreachable["code"] == "hub_unavailable"


async def test_a_gguf_is_downloaded_and_registered(
    hub: FakeHub, http: httpx.AsyncClient, running: Harness, weights: bytes
) -> None:
    hub.repositories["me/tiny-GGUF"] = FakeRepository({"tiny-Q8_0.gguf": weights, "README.md": b"# tiny"})
    job = await ended(running.gateway.feed, http, await start(http, repo="me/tiny-GGUF"))
    assert (job["state"], job["done_bytes"], job["total_bytes"]) == ("done", len(weights), len(weights))
    model = Registry().get(job["model"])
    assert model.source == f"hf:me/tiny-GGUF@{COMMIT}"
    assert content_of(model.path) == weights
    assert (await http.get("/hf/downloads")).json()[0] == job
    assert not hub.asked_for("GET", "README")


async def test_a_folder_of_safetensors(hub: FakeHub, http: httpx.AsyncClient, running: Harness, tmp_path: Path) -> None:
    folder = tiny_folder(tmp_path / "tiny")
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    pickles = {"pytorch_model.bin": b"x", "original/consolidated.00.pth": b"x"}
    hub.repositories["me/tiny"] = FakeRepository(files | pickles)
    job = await ended(running.gateway.feed, http, await start(http, repo="me/tiny"))
    assert job["state"] == "done"
    assert names_in(Registry().get(job["model"]).path) == set(files)


async def test_of_several_models_the_one_that_suits_the_machine(
    hub: FakeHub, http: httpx.AsyncClient, weights: bytes
) -> None:
    hub.repositories["me/tiny"] = FakeRepository({"tiny-Q4_0.gguf": weights, "tiny-Q8_0.gguf": weights + bytes(999)})
    assert (await start(http, repo="me/tiny"))["file"] == "tiny-Q8_0.gguf"
    refused = await http.post("/hf/download", json={"repo": "me/tiny", "file": "x.gguf"})
    assert refused.status_code == 422
    assert "tiny-Q4_0.gguf, tiny-Q8_0.gguf" in refused.json()["error"]["message"]


async def test_what_cannot_be_had(hub: FakeHub, http: httpx.AsyncClient, weights: bytes) -> None:
    assert (await http.post("/hf/download", json={"repo": "me/none"})).status_code == 404
    assert (await http.post("/hf/download", json={"repo": "a/b/c"})).status_code == 400
    hub.repositories["me/tiny"] = FakeRepository({"tiny.gguf": weights})
    assert (await http.post("/hf/download", json={"repo": "me/tiny", "revision": "v9"})).status_code == 404
    assert (await http.get("/hf/downloads/none")).status_code == 404


async def test_a_gated_repository(
    hub: FakeHub, http: httpx.AsyncClient, running: Harness, weights: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.repositories["me/tiny"] = FakeRepository({"tiny.gguf": weights}, gated=True)
    job = await ended(running.gateway.feed, http, await start(http, repo="me/tiny"))
    assert job["state"] == "failed"
    assert "hf auth login" in job["error"]["hint"] and f"{hub.url}/me/tiny" in job["error"]["hint"]
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    job = await ended(running.gateway.feed, http, await start(http, repo="me/tiny"))
    assert job["state"] == "done"
    assert all("authorization" not in headers for headers in hub.asked_for("GET", "/cdn/"))


async def test_progress_is_told(hub: FakeHub, http: httpx.AsyncClient, running: Harness, weights: bytes) -> None:
    content = weights + _LARGE
    hub.repositories["me/tiny"] = FakeRepository({"tiny.gguf": content})
    hub.hold.clear()
    with running.gateway.feed.subscribe() as subscription:
        job = await start(http, repo="me/tiny")
        async with asyncio.timeout(PATIENCE_SECONDS):
            async for notice in subscription:
                if notice.kind is EventKind.DOWNLOAD and notice.data["rate_bytes_per_second"] is not None:
                    break
    assert notice.data["files"] == [{"name": "tiny.gguf", "done_bytes": len(content) // 2, "total_bytes": len(content)}]
    assert (notice.data["files_done"], notice.data["files_total"], notice.data["note"]) == (0, 1, "")
    hub.hold.set()
    job = await ended(running.gateway.feed, http, job)
    assert (job["files_done"], job["files"], job["remaining_seconds"]) == (1, [], None)


async def test_a_download_that_was_cancelled_is_taken_up(
    hub: FakeHub, http: httpx.AsyncClient, running: Harness, weights: bytes
) -> None:
    content = weights + _LARGE
    hub.repositories["me/tiny"] = FakeRepository({"tiny.gguf": content})
    hub.hold.clear()
    first = await start(http, repo="me/tiny")
    half = len(content) // 2
    await until(lambda: begun_bytes(content) == half)
    assert (await http.delete(f"/hf/downloads/{first['id']}")).json()["state"] == "cancelled"
    hub.hold.set()
    assert (await ended(running.gateway.feed, http, await start(http, repo="me/tiny")))["state"] == "done"
    assert hub.asked_for("GET", "/cdn/")[-1]["range"] == f"bytes={half}-{len(content) - 1}"


async def test_one_at_a_time_the_same_one_once_and_cancelled(
    hub: FakeHub, http: httpx.AsyncClient, running: Harness, weights: bytes
) -> None:
    hub.repositories["me/tiny"] = FakeRepository({"tiny-Q4_0.gguf": weights, "tiny-Q8_0.gguf": weights + b"\0"})
    hub.hold.clear()
    first = await start(http, repo="me/tiny", file="tiny-Q4_0.gguf")
    await until_held(hub)
    assert (await start(http, repo="me/tiny", file="tiny-Q4_0.gguf"))["id"] == first["id"]
    second = await start(http, repo="me/tiny", file="tiny-Q8_0.gguf")
    assert [job["state"] for job in (await http.get("/hf/downloads")).json()] == ["running", "queued"]
    assert (await http.delete(f"/hf/downloads/{second['id']}")).json()["state"] == "cancelled"
    assert (await http.delete(f"/hf/downloads/{first['id']}")).json()["state"] == "cancelled"
    hub.hold.set()
    again = await ended(running.gateway.feed, http, await start(http, repo="me/tiny", file="tiny-Q4_0.gguf"))
    assert again["state"] == "done"


async def test_download_without_a_model_stays_on_the_disk(
    hub: FakeHub, http: httpx.AsyncClient, running: Harness, own_home: Path
) -> None:
    hub.repositories["me/tiny"] = FakeRepository({"tiny.gguf": b"nonsense" * 1000})
    job = await ended(running.gateway.feed, http, await start(http, repo="me/tiny"))
    assert (job["state"], job["error"]["code"]) == ("failed", "bad_model_file")
    assert "tiny.gguf" in names_in(str(own_home))
    assert not Registry().all()


async def test_a_gateway_that_ends_ends_its_download(hub: FakeHub, weights: bytes) -> None:
    hub.repositories["me/tiny"] = FakeRepository({"tiny.gguf": weights})
    hub.hold.clear()
    async with harness("a") as running, httpx.AsyncClient(base_url=running.url, timeout=PATIENCE_SECONDS) as http:
        await start(http, repo="me/tiny")
        await until_held(hub)
        assert children_that_download()
    assert not children_that_download()
