"""Requests through a tunnel reach /v1 of one model, with a key, and nothing else."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from mmd.control.tunnel.host import exposed_host, exposed_model
from mmd.errors import EngineFailed
from mmd.gateway.http.api_keys import KeyFile, Keyring, Purpose
from mmd.gateway.http.limits import Limits
from mmd.gateway.http.policy import RequestPolicy
from mmd.plan.idle import Rules
from tests.gateway_peer import EngineRequest, Harness, ReceivedResponse, harness, post, until


@pytest.fixture
def key() -> str:
    return KeyFile().add("friend", Purpose.MANAGEMENT)


@pytest.fixture
async def running(key: str) -> AsyncIterator[Harness]:
    async with harness("a", "b", policy=RequestPolicy(Limits(), keyring=Keyring(stat_seconds=0))) as running:
        yield running


def _brought(request: bytes, key: str, exposed: str = "b") -> bytes:
    """A request as cloudflared forwards it: with its own Host, and the original one beside it."""
    ours = f"Host: {exposed_host(exposed)}\r\nX-Forwarded-Host: x.trycloudflare.com\r\n"
    with_key = f"Authorization: Bearer {key}\r\n" if key else ""
    return request.replace(b"Host: localhost\r\n", (ours + with_key).encode(), 1)


def _get(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()


async def _ask(running: Harness, request: bytes) -> ReceivedResponse:
    return await (await running.client()).ask(request)


@pytest.mark.parametrize(
    "host", ["localhost", "exposed.mmd.internal", "B.EXPOSED.MMD.INTERNAL", "b.exposed.mmd.internal:80"]
)
def test_hosts_that_expose_no_model(host: str) -> None:
    assert exposed_model(host.encode()) is None


def test_host_names_the_exposed_model() -> None:
    assert exposed_model(exposed_host("qwen2.5-7b").encode()) == "qwen2.5-7b"


async def test_exposed_model_is_the_default_even_if_another_is_active(running: Harness, key: str) -> None:
    for body in ({"model": "b"}, {}, {"model": ""}):
        answer = await _ask(running, _brought(post(body), key))
        assert (answer.status, answer.json()["peer"]) == (200, "b")
    assert running.models.active == "b"
    assert running.peer("a").requests == []


@pytest.mark.parametrize("name", ["a", "nobody"])
async def test_other_models_look_like_unknown_ones(running: Harness, key: str, name: str) -> None:
    for request in (post({"model": name}), _get(f"/v1/models/{name}"), _get(f"/v1/realtime?model={name}")):
        answer = await _ask(running, _brought(request, key))
        error = answer.json()["error"]
        assert (answer.status, error["code"], error["source"]) == (404, "model_not_found", "mmd")
        assert error["message"] == f"no model named {name} is available here"
    assert running.models.log == []


async def test_exposed_model_that_was_removed_is_gone(running: Harness, key: str) -> None:
    for request in (post({}), _get("/v1/models/c")):
        assert (await _ask(running, _brought(request, key, "c"))).status == 404
    assert (await _ask(running, _brought(_get("/v1/models"), key, "c"))).json()["data"] == []


async def test_list_has_only_the_exposed_model(running: Harness, key: str) -> None:
    listed = (await _ask(running, _brought(_get("/v1/models"), key))).json()
    assert [model["id"] for model in listed["data"]] == ["b"]
    assert (await _ask(running, _brought(_get("/v1/models/b"), key))).json()["id"] == "b"


@pytest.mark.parametrize(
    "path", ["/", "/health", "/status", "/models", "/metrics", "/events", "/page/page.js", "/openapi.json", "/v1"]
)
async def test_management_key_reaches_only_v1(running: Harness, key: str, path: str) -> None:
    answer = await _ask(running, _brought(_get(path), key))
    assert (answer.status, answer.json()["error"]["source"]) == (404, "mmd")
    assert (await _ask(running, _brought(_get(path), ""))).status == 401


@pytest.mark.parametrize(
    "path",
    ["/v1/../status", "/v1/models/../../status", "/v1/models/%2e%2e/%2e%2e/status", "//status", "/v1//../status"],
)
async def test_paths_cannot_leave_v1(running: Harness, key: str, path: str) -> None:
    answer = await _ask(running, _brought(_get(path), key))
    assert answer.status in (400, 404)
    assert "resources" not in answer.json()


async def test_nothing_is_changed_through_a_tunnel(running: Harness, key: str) -> None:
    for path in ("/models/stop", "/models/activate", "/switch", "/models/sleep", "/hf/download"):
        assert (await _ask(running, _brought(post({"model": "b"}, path), key))).status == 404
    assert (await _ask(running, _brought(_get("/ws"), key))).status == 404
    assert running.models.log == []


async def test_tunnel_always_requires_a_key(running: Harness, key: str) -> None:
    """The last key may be removed while a tunnel is open; local requests need none then."""
    assert (await _ask(running, _brought(post({}), ""))).status == 401
    assert (await _ask(running, _brought(post({}), "mmd-of-somebody-else"))).status == 401
    KeyFile().remove("friend", last_too=True)
    assert (await _ask(running, post({"model": "a"}))).status == 200
    for request in (post({}), _get("/v1/models"), _get("/health")):
        assert (await _ask(running, _brought(request, key))).status == 401
    assert running.peer("b").requests == []


async def test_second_host_header_is_refused(running: Harness, key: str) -> None:
    both = _brought(_get("/status"), key).replace(b"X-Forwarded-Host: x.trycloudflare.com", b"Host: localhost")
    assert (await _ask(running, both)).status == 400


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages"])
async def test_errors_are_redacted_for_the_remote_side(running: Harness, key: str, path: str) -> None:
    """A local request gets the unredacted error."""
    hint, lines = "mmd logs b", ("secret words of the journal",)
    running.models.failing["b"] = EngineFailed("b died beside a", hint=hint, engine_lines=lines)
    answer = await _ask(running, _brought(post({"stream": True}, path), key))
    assert answer.status == 503
    assert answer.json()["error"]["message"] == "b is not available now"
    assert not any(word in answer.body for word in (b"secret", b"beside a", b"mmd logs"))


async def test_pinned_model_is_not_named_to_the_remote_side(running: Harness, key: str) -> None:
    running.models.rules["a"] = Rules(pinned=True)
    error = (await _ask(running, _brought(post({}), key))).json()["error"]
    assert (error["message"], error["hint"]) == ("b is not available now", "try again later")
    from_here = post({"model": "b"}, "/v1/chat/completions", f"Authorization: Bearer {key}")
    assert "a, which is pinned" in (await _ask(running, from_here)).json()["error"]["message"]


@pytest.mark.parametrize(
    ("more", "hint"),
    [(b"CF-Ray: 8f0000000000000a-CDG\r\n", "ID.exposed.mmd.internal"), (b"", 'hosts = ["llm.example.org"]')],
)
async def test_allowing_a_tunnels_own_host_is_not_suggested(running: Harness, more: bytes, hint: str) -> None:
    """A tunnel set up on Cloudflare's pages keeps its public Host. If that were allowed, it would reach all models."""
    answer = await _ask(running, _get("/v1/models").replace(b"localhost\r\n", b"llm.example.org\r\n" + more))
    assert answer.status == 403
    assert hint in answer.json()["error"]["hint"]
    assert (b"hosts" in answer.body) is (not more)


async def test_response_through_a_tunnel_is_streamed(running: Harness, key: str) -> None:
    async def stream(received: EngineRequest) -> None:
        await received.begin_stream(b"data: 1\n\n")
        assert await received.reader.read(1) == b""  # the client has seen the piece and disconnects

    running.peer("b").on["/v1/chat/completions"] = stream
    client = await running.client()
    await client.send(_brought(post({"stream": True}), key))
    assert (await client.head())[0] == 200
    assert await client.chunk() == b"data: 1\n\n"


async def test_tunnel_does_not_learn_which_model_cut_its_stream(key: str) -> None:
    limits = Limits(min_residency_seconds=0, drain_seconds=0.05)
    policy = RequestPolicy(limits, keyring=Keyring(stat_seconds=0))
    async with harness("a", "b", active="b", limits=limits, policy=policy) as running:

        async def stream(received: EngineRequest) -> None:
            await received.begin_stream(b"data: 1\n\n")
            await received.gone()

        running.peer("b").on["/v1/chat/completions"] = stream
        client = await running.client()
        await client.send(_brought(post({"stream": True}), key))
        await client.head()
        with_key = f"Authorization: Bearer {key}"
        assert (await _ask(running, post({"model": "a"}, "/v1/x", with_key))).status == 200
        rest = await client.rest()
        assert b'"code":"unavailable"' in rest.replace(b": ", b":")
        assert b" a " not in rest


async def test_tunnel_does_not_learn_whose_responses_it_waits_for(key: str) -> None:
    limits = Limits(min_residency_seconds=0, first_comment_seconds=0.01, comment_seconds=0.02)
    policy = RequestPolicy(limits, keyring=Keyring(stat_seconds=0))
    async with harness("a", "b", limits=limits, policy=policy) as running:

        async def hang(received: EngineRequest) -> None:
            await received.gone()

        running.peer("a").on["/v1/x"] = hang
        busy = await running.client()
        await busy.send(post({"model": "a"}, "/v1/x", f"Authorization: Bearer {key}"))
        await until(lambda: running.gateway.scheduler.in_flight("a") == 1)
        client = await running.client()
        await client.send(_brought(post({"stream": True}), key))
        await client.head()
        assert await client.chunk() == b": waiting for b: turn 1 of 1\n\n"
