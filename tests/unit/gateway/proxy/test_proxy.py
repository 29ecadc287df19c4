"""Requests to a resident model and their responses."""

from __future__ import annotations

import asyncio
import json

import httpx

from mmd.gateway.http.limits import Limits
from tests.gateway_peer import EngineRequest, chunk, harness, post

_CHAT = {"model": "a", "messages": [{"role": "user", "content": "hi"}]}


async def test_request_and_response_pass_unchanged() -> None:
    async with harness() as running, httpx.AsyncClient(base_url=running.url) as http:
        response = await http.post("/v1/chat/completions?x=1", json=_CHAT, headers={"x-mine": "yes"})
        assert response.status_code == 200
        received = running.peer("a").requests[0]
        assert received.first_line == "POST /v1/chat/completions?x=1 HTTP/1.1"
        assert json.loads(received.body) == _CHAT
        assert received.values("x-mine") == ["yes"]
        assert received.values("content-length") == [str(len(received.body))]


async def test_request_without_a_model_goes_to_the_active_one() -> None:
    async with harness("a", "b", active="b") as running, httpx.AsyncClient(base_url=running.url) as http:
        assert (await http.post("/v1/completions", json={"prompt": "x"})).json()["peer"] == "b"
        assert (await http.post("/v1/completions", json={"model": "", "prompt": "x"})).json()["peer"] == "b"
        assert (await http.get("/v1/anything")).json()["peer"] == "b"


async def test_hop_by_hop_headers_are_not_forwarded() -> None:
    async with harness() as running:
        client = await running.client()
        headers = (
            "Connection: keep-alive, X-Hop",
            "X-Hop: 1",
            "Keep-Alive: 5",
            "TE: trailers",
            "Proxy-Connection: x",
            "Y: 2",
        )
        await client.ask(post(_CHAT, "/v1/x", *headers))
        names = {name.lower() for name, _ in running.peer("a").requests[0].headers}
        assert names == {"host", "y", "content-length"}


async def test_chunked_request_is_forwarded_with_a_length() -> None:
    async with harness() as running:
        client = await running.client()
        head = b"POST /v1/x HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
        body = json.dumps(_CHAT).encode()
        await client.send(head + chunk(body[:10]))
        await client.send(chunk(body[10:]) + b"0\r\nX-Trailer: 1\r\n\r\n")
        assert (await client.answer()).status == 200
        received = running.peer("a").requests[0]
        assert received.body == body
        assert {name.lower() for name, _ in received.headers} == {"host", "content-length"}


async def test_stream_arrives_chunk_by_chunk() -> None:
    async with harness() as running:
        steps: asyncio.Queue[bytes] = asyncio.Queue()

        async def stream(received: EngineRequest) -> None:
            await received.begin_stream()
            while piece := await steps.get():
                await received.send(chunk(piece))
            await received.send(b"0\r\n\r\n")

        running.peer("a").on["/v1/stream"] = stream
        client = await running.client()
        await client.send(post(_CHAT, "/v1/stream"))
        for number in range(5):
            piece = b"data: %d\r\n\r\n" % number
            await steps.put(piece)
            if number == 0:
                assert (await client.head())[0] == 200
            assert await client.chunk() == piece  # before the next piece is written
        await steps.put(b"")
        assert await client.chunk() == b""
        assert (await client.ask(post(_CHAT))).status == 200  # and the connection stays open


async def test_fifty_clients_at_once() -> None:
    async with harness() as running:
        everybody_here = asyncio.Event()

        async def wait_for_all(received: EngineRequest) -> None:
            if len(running.peer("a").requests) == 50:
                everybody_here.set()
            await everybody_here.wait()
            await received.answer(received.body)

        running.peer("a").on["/v1/x"] = wait_for_all
        async with httpx.AsyncClient(base_url=running.url, limits=httpx.Limits(max_connections=50)) as http:
            answers = await asyncio.gather(*(http.post("/v1/x", json={"model": "a", "n": n}) for n in range(50)))
        assert [answer.json()["n"] for answer in answers] == list(range(50))


async def test_engine_connection_is_reused() -> None:
    async with harness() as running:
        for _ in range(3):
            client = await running.client()
            for _ in range(3):
                assert (await client.ask(post(_CHAT))).status == 200
        assert running.peer("a").connections == 1


async def test_pipelined_requests_are_served_in_order() -> None:
    async with harness() as running:

        async def echo(received: EngineRequest) -> None:
            await received.answer(received.body)

        running.peer("a").on["/v1/x"] = echo
        client = await running.client()
        bodies = [{"model": "a", "n": n} for n in range(20)] + [{"model": "nobody"}, {"model": "a", "n": 21}]
        await client.send(b"".join(post(body, "/v1/x") for body in bodies[:10]))
        await client.send(b"".join(post(body, "/v1/x") for body in bodies[10:]))
        for body in bodies:
            answer = await client.answer()
            if body["model"] == "nobody":
                assert answer.status == 404
            else:
                assert answer.json() == body


async def test_requests_pipelined_beyond_the_limit_are_served() -> None:
    async with harness(limits=Limits(ahead_bytes=1000)) as running:
        client = await running.client()
        sending = asyncio.create_task(client.send(post({"model": "a", "pad": "x" * 3000}) * 300))
        for _ in range(300):
            assert (await client.answer()).status == 200
        await sending


async def test_big_bodies_pass_both_ways() -> None:
    async with harness() as running:
        big = json.dumps({"messages": ["x" * 20_000_000], "model": "a"}).encode()

        async def echo(received: EngineRequest) -> None:
            await received.answer(received.body)

        running.peer("a").on["/v1/x"] = echo
        client = await running.client()
        sending = asyncio.create_task(client.send(post(big, "/v1/x")))
        assert (await client.answer()).body == big
        await sending


async def test_slow_client_pauses_the_engine() -> None:
    async with harness() as running:
        written = 0

        async def flood(received: EngineRequest) -> None:
            nonlocal written
            await received.begin_stream()
            for _ in range(1000):
                await received.send(chunk(b"x" * 100_000))
                written += 100_000
            await received.send(b"0\r\n\r\n")

        running.peer("a").on["/v1/x"] = flood
        slow, other = await running.client(), await running.client()
        await slow.send(post(_CHAT, "/v1/x"))
        await slow.head()
        seen = -1
        while seen != written:  # until all buffers are full
            seen = written
            for _ in range(20):
                await other.ask(post(_CHAT))
        assert written < 50_000_000
        received = 0
        while piece := await slow.chunk():
            received += len(piece)
        assert received == 100_000_000


async def test_http10_client_gets_a_bare_body() -> None:
    async with harness() as running:

        async def stream(received: EngineRequest) -> None:
            await received.begin_stream(b"data: 1\n\n", b"data: 2\n\n")
            await received.send(b"0\r\n\r\n")

        running.peer("a").on["/v1/x"] = stream
        client = await running.client()
        await client.send(b'POST /v1/x HTTP/1.0\r\nContent-Length: 13\r\n\r\n{"model":"a"}')
        head, _, body = (await client.rest()).partition(b"\r\n\r\n")
        assert b"Transfer-Encoding" not in head and b"Connection: close" in head
        assert body == b"data: 1\n\ndata: 2\n\n"


async def test_connection_close_is_honoured() -> None:
    async with harness() as running:
        client = await running.client()
        assert (await client.ask(post(_CHAT, "/v1/x", "Connection: close"))).status == 200
        assert await client.rest() == b""
        client = await running.client()
        refused = await client.ask(post({"model": "nobody"}, "/v1/x", "Connection: close"))
        assert (refused.status, refused.headers["connection"]) == (404, "close")
        assert await client.rest() == b""


async def test_response_without_length_ends_with_its_connection() -> None:
    async with harness() as running:

        async def close(received: EngineRequest) -> None:
            await received.answer(b"{}", extra="Connection: close\r\n")
            received.writer.close()

        async def until_closed(received: EngineRequest) -> None:
            await received.send(b"HTTP/1.1 200 OK\r\n\r\nall there is")
            received.writer.close()

        running.peer("a").on |= {"/v1/close": close, "/v1/until-closed": until_closed}
        client = await running.client()
        assert (await client.ask(post(_CHAT, "/v1/close"))).body == b"{}"
        assert await client.rest() == b""
        client = await running.client()
        await client.send(post(_CHAT, "/v1/until-closed"))
        assert (await client.rest()).endswith(b"\r\n\r\nall there is")


async def test_head_response_has_no_body() -> None:
    async with harness() as running:

        async def head(received: EngineRequest) -> None:
            await received.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")

        running.peer("a").on["/v1/x"] = head
        client = await running.client()
        await client.send(b"HEAD /v1/x HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert (await client.head())[1]["content-length"] == "1000"
        assert (await client.ask(post(_CHAT))).status == 200


async def test_error_response_to_head_has_no_body() -> None:
    """A client that keeps the connection would read the error's body as the next response."""
    async with harness() as running:
        client = await running.client()
        await client.send(b"HEAD /v1/x?model=nope HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert (await client.head())[0] == 404
        assert (await client.ask(post(_CHAT))).status == 200


async def test_interim_responses_are_forwarded() -> None:
    async with harness() as running:

        async def hints(received: EngineRequest) -> None:
            await received.send(b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n")
            await received.answer(b"{}")

        running.peer("a").on["/v1/x"] = hints
        client = await running.client()
        await client.send(post(_CHAT, "/v1/x"))
        assert (await client.head())[0] == 103
        assert (await client.answer()).body == b"{}"
        assert (await client.ask(post(_CHAT))).status == 200


async def test_gateway_responds_to_expect_continue() -> None:
    async with harness() as running:
        client = await running.client()
        body = json.dumps(_CHAT).encode()
        head = f"POST /v1/x HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: {len(body)}\r\n\r\n"
        for _ in range(2):
            await client.send(head.encode())
            assert (await client.head())[0] == 100
            assert (await client.ask(body)).status == 200
        assert (await client.ask(head.encode() + body)).status == 200  # a body sent at once needs no permission
        assert running.peer("a").requests[0].values("expect") == []


async def test_upgrade_offer_is_ignored() -> None:
    async with harness() as running:
        client = await running.client()
        for _ in range(2):
            offer = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABk")
            assert (await client.ask(post(_CHAT, "/v1/x", *offer))).status == 200
        names = {name.lower() for name, _ in running.peer("a").requests[1].headers}
        assert names == {"host", "content-length"}


async def test_model_in_an_upload() -> None:
    async with (
        harness("a", "whisper", active="whisper") as running,
        httpx.AsyncClient(base_url=running.url) as http,
    ):
        files = {"file": ("a.wav", b"\x00\xff" * 50_000)}
        answer = await http.post("/v1/audio/transcriptions", files=files, data={"model": "whisper"})
        assert answer.json()["peer"] == "whisper"
        answer = await http.post("/v1/audio/transcriptions", files=files, data={"model": "nobody"})
        assert answer.status_code == 404


async def test_error_of_an_engine_passes_unchanged() -> None:
    async with harness() as running:

        async def refuse(received: EngineRequest) -> None:
            await received.answer(b'{"error": "mine"}', status="422 Unprocessable Entity")

        running.peer("a").on["/v1/x"] = refuse
        client = await running.client()
        answer = await client.ask(post(_CHAT, "/v1/x"))
        assert (answer.status, answer.body) == (422, b'{"error": "mine"}')


async def test_query_names_the_model_of_a_bodyless_request() -> None:
    async with harness("a", "b") as running:
        client = await running.client()
        for method, target, served_by in (
            ("GET", "/v1/responses/resp_1", "a"),
            ("GET", "/v1/responses/resp_1?stream=true&model=b", "b"),
            ("DELETE", "/v1/stream?conv_id=x", "b"),
            ("POST", "/v1/responses/resp_1/cancel?model=a", "a"),
            ("OPTIONS", "/v1/chat/completions", "a"),
        ):
            answer = await client.ask(f"{method} {target} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            assert answer.json()["peer"] == served_by
            assert answer.json()["first_line"] == f"{method} {target} HTTP/1.1"


async def test_tokenize_paths_are_mapped_to_the_engines() -> None:
    """Both engines serve it outside /v1, where clients cannot reach it."""
    async with harness() as running:
        client = await running.client()
        for task in ("tokenize", "detokenize"):
            answer = await client.ask(post({"model": "a", "prompt": "x"}, f"/v1/{task}"))
            assert answer.json()["first_line"] == f"POST /{task} HTTP/1.1"
            answer = await client.ask(post({"model": "a", "prompt": "x"}, f"/v1/{task}?x=y"))
            assert answer.json()["first_line"] == f"POST /{task}?x=y HTTP/1.1"
