"""The page's files, as the gateway serves them; what they do is tested in tests/page."""

from __future__ import annotations

import re

import httpx
import pytest

from mmd.cli.verbs import mmd
from mmd.gateway.api import web
from mmd.gateway.http.api_keys import KeyFile, Purpose
from tests.gateway_peer import harness


def test_verbs_that_the_page_names_are_there() -> None:
    files = web.ASSETS.values()
    named = {verb for file in files for verb in re.findall(rb"[>`]mmd (\w+)", file.body)}
    assert b"logs" in named
    assert {verb.decode() for verb in named} <= mmd.commands.keys()


async def test_everything_the_page_names_is_there_and_small(http: httpx.AsyncClient) -> None:
    """No outside resources, and none that are missing."""
    total_bytes, seen, wanted = 0, set[str](), ["/"]
    while wanted:
        path = wanted.pop()
        if path in seen:
            continue
        seen.add(path)
        response = await http.get(path)
        assert response.status_code == 200, path
        total_bytes += len(response.content)
        assert set(re.findall(r"https?://[^\s\"]+", response.text)) <= {"http://www.w3.org/2000/svg"}
        wanted += re.findall(r'(?:src|href)="([^"#]+)"', response.text)
        wanted += [f"/page/{name}" for name in re.findall(r'from "\./([^"]+)"', response.text)]
    assert len(seen) > 10
    assert total_bytes < 66_000


@pytest.mark.parametrize(
    ("path", "media_type"),
    [
        ("/", "text/html; charset=utf-8"),
        ("/page/page.js", "text/javascript; charset=utf-8"),
        ("/page/style.css", "text/css; charset=utf-8"),
        ("/page/icon.svg", "image/svg+xml"),
    ],
)
async def test_headers(http: httpx.AsyncClient, path: str, media_type: str) -> None:
    headers = (await http.get(path)).headers
    assert headers["content-type"] == media_type
    policy = headers["content-security-policy"].split("; ")
    assert {"default-src 'none'", "script-src 'self'", "frame-ancestors 'none'", "form-action 'none'"} <= set(policy)
    assert "unsafe" not in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cache-control"] == "no-cache"


async def test_what_the_browser_has_is_not_sent_again(http: httpx.AsyncClient) -> None:
    etag = (await http.get("/page/style.css")).headers["etag"]
    again = await http.get("/page/style.css", headers={"if-none-match": f'"other", W/{etag}'})
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", etag)
    assert (await http.get("/page/style.css", headers={"if-none-match": '"other"'})).status_code == 200


@pytest.mark.parametrize(
    "path", ["/page/", "/page/none.js", "/page/../routes.py", "/page/%2e%2e%2froutes.py", "/page/x/y"]
)
async def test_nothing_else_is_served(http: httpx.AsyncClient, path: str) -> None:
    response = await http.get(path)
    assert (response.status_code, response.json()["error"]["code"]) == (404, "not_found")


async def test_the_page_needs_no_key_and_what_it_shows_does() -> None:
    KeyFile().add("laptop", Purpose.MANAGEMENT)
    async with harness("a") as running, httpx.AsyncClient(base_url=running.url) as http:
        for path in ("/", "/page/page.js"):
            assert (await http.get(path)).status_code == 200
            assert (await http.post(path)).status_code == 401
        for path in ("/status", "/page", "/pages"):
            assert (await http.get(path)).status_code == 401, path
        assert (await http.get("/page/%2e%2e%2fstatus")).status_code == 404
