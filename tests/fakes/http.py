"""llama-server's HTTP API over plain sockets, a thread for each connection: what `engine` responds."""

from __future__ import annotations

import json
import socket
import threading
import time

TYPE_CHECKING = False  # see engine.py
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

    from tests.fakes.engine import Engine

TASKS = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/rerank", "/score")
_SLEEP = (
    ("POST", "/sleep"),
    ("POST", "/wake_up"),
    ("POST", "/collective_rpc"),
    ("GET", "/is_sleeping"),
    ("GET", "/metrics"),
)
_REASONS = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    500: "Internal Server Error",
    501: "Not Implemented",
    503: "Service Unavailable",
}


class Api:
    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.ready = threading.Event()
        self.idle = threading.Condition()  # guards in_flight
        self.in_flight = 0
        self.served = 0
        self.tokens_in = 0
        self.tokens_out = 0

    def accept(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return  # closed: the engine is terminating
            threading.Thread(target=self.converse, args=(connection,), daemon=True).start()

    def converse(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as reader:
            try:
                while (request := read_request(reader)) and self.answer(connection, *request):
                    pass
            except OSError:
                return  # the client disconnected

    def drain(self) -> None:
        """Wait until all requests are done: streams end at their next chunk, others take as long as they take."""
        with self.idle:
            self.idle.wait_for(lambda: self.in_flight == 0)

    def answer(self, connection: socket.socket, method: str, path: str, body: bytes) -> bool:
        """Return whether the connection stays open: the real one closes it after every error."""
        if not self.ready.is_set():
            self.engine.asked.set()
            return send_error(connection, 503, "Loading model", "unavailable_error")
        with self.idle:
            self.in_flight += 1
        try:
            return self.route(connection, method, path, body)
        finally:
            with self.idle:
                self.in_flight -= 1
                self.idle.notify_all()

    def route(self, connection: socket.socket, method: str, target: str, body: bytes) -> bool:
        path, _, query = target.partition("?")
        if method == "POST" and path in TASKS:
            return self.serve(connection, path, body)
        if self.engine.behaviour.can_sleep and (method, path) in _SLEEP:
            return self.change_sleep(connection, path, query, body)
        match method, path:
            case "GET", "/health" | "/v1/health":
                return send_json(connection, {"status": "ok"})
            case "GET", "/props":
                return send_json(connection, {"model_alias": self.engine.alias, "model_path": self.engine.model})
            case "GET", "/v1/models" | "/models":
                return send_json(connection, {"object": "list", "data": [{"id": self.engine.alias, "object": "model"}]})
            case "GET", "/metrics":
                return self.metrics(connection)
            case _:
                return send_error(connection, 404, "File Not Found", "not_found_error")

    def metrics(self, connection: socket.socket) -> bool:
        if "--metrics" not in self.engine.options:
            return unsupported(connection, "This server does not support metrics endpoint.")
        text = f"# TYPE llamacpp:requests_processing gauge\nllamacpp:requests_processing {self.in_flight}\n"
        text += "llamacpp:requests_deferred 0\nllamacpp:n_tokens_max 0\nllamacpp:prompt_tokens_cached_total 0\n"
        text += self.tokens("llamacpp:prompt_tokens_total", "llamacpp:tokens_predicted_total", "")
        return send(connection, 200, "text/plain; version=0.0.4", text.encode())

    def tokens(self, name_in: str, name_out: str, labels: str) -> str:
        counted = {name_in: self.tokens_in, name_out: self.tokens_out}
        return "".join(f"# TYPE {name} counter\n{name}{labels} {float(count)}\n" for name, count in counted.items())

    def change_sleep(self, connection: socket.socket, path: str, query: str, body: bytes) -> bool:
        sleeper = self.engine.sleeper
        asked = parse_query(query)
        match path:
            case "/sleep":
                status, record = sleeper.sleep(asked)
            case "/wake_up":
                status, record = sleeper.wake(asked.get("tags", []))
            case "/collective_rpc":
                status, record = sleeper.rpc(json.loads(body))
            case "/metrics":
                return send(connection, 200, "text/plain; version=0.0.4", sleeper.metrics().encode())
            case _:
                status, record = 200, {"is_sleeping": sleeper.is_sleeping}
        return send_json(connection, record, status)

    # -- tasks

    def serve(self, connection: socket.socket, task: str, body: bytes) -> bool:
        try:
            asked = json.loads(body)
        except ValueError:
            return send_error(connection, 400, "parse error", "invalid_request_error")
        began = self.engine.sleeper.begin()  # as in vLLM, a request to a sleeping engine hangs
        try:
            if has_left(connection):
                return False  # the request is not executed
            return self.work(connection, task, asked, began)
        finally:
            self.engine.sleeper.end()

    def work(self, connection: socket.socket, task: str, asked: dict[str, object], began: int) -> bool:
        self.engine.log("request")
        self.served += 1
        self.tokens_in += 1
        if self.engine.behaviour.die_on_request:
            self.engine.die()
        if self.engine.behaviour.hang_on_request:
            hang()
        if task == "/v1/embeddings":
            return self.embed(connection, asked)
        if task == "/v1/rerank":
            return self.rerank(connection, asked)
        if task == "/score":
            return self.score(connection)
        is_chat = task == "/v1/chat/completions"
        if is_chat and asked.get("tools"):
            return self.call_tool(connection, asked)
        return (self.stream if asked.get("stream") else self.generate)(connection, is_chat, began)

    def pieces(self, began: int) -> Iterator[str]:
        """Yield the response, always the same with the alias in it: "a-0 a-1 a-2 ". It ends early if it is aborted."""
        for number in range(self.engine.behaviour.chunks):
            time.sleep(self.engine.behaviour.chunk_seconds)
            if not self.engine.sleeper.goes_on(began):
                return
            self.tokens_out += 1
            yield f"{self.voice()}-{number} "

    def voice(self) -> str:
        """Return the word of the response; it differs if the model's weights were not read again."""
        return self.engine.alias if self.engine.sleeper.has_weights else "garbage"

    def finish_reason(self, began: int) -> str:
        return "stop" if self.engine.sleeper.goes_on(began) else "abort"

    def record(self, kind: str, choice: dict[str, object]) -> dict[str, object]:
        about = {
            "id": "chatcmpl-fake",
            "object": kind,
            "created": int(time.time()),
            "model": self.engine.alias,
        }
        return {"choices": [{"index": 0} | choice]} | about

    def generate(self, connection: socket.socket, is_chat: bool, began: int) -> bool:
        text = "".join(self.pieces(began))
        said: dict[str, object] = {"message": {"role": "assistant", "content": text}} if is_chat else {"text": text}
        said["logprobs"] = {"tokens": [text], "token_logprobs": [-0.5]}
        kind = "chat.completion" if is_chat else "text_completion"
        tokens = self.engine.behaviour.chunks
        usage = {"prompt_tokens": 1, "completion_tokens": tokens, "total_tokens": tokens + 1}
        said["finish_reason"] = self.finish_reason(began)
        return send_json(connection, self.record(kind, said) | {"usage": usage})

    def call_tool(self, connection: socket.socket, asked: dict[str, object]) -> bool:
        """Return a call of the first tool, with the first allowed value of each of its parameters."""
        tools = asked["tools"]
        if not isinstance(tools, list):
            return send_error(connection, 400, '"tools" must be an array', "invalid_request_error")
        function = tools[0]["function"]
        arguments = {name: about["enum"][0] for name, about in function["parameters"]["properties"].items()}
        called = {"name": function["name"], "arguments": json.dumps(arguments)}
        calls = [{"id": "call-fake", "type": "function", "function": called}]
        message = {"role": "assistant", "content": None, "tool_calls": calls}
        return send_json(
            connection, self.record("chat.completion", {"message": message, "finish_reason": "tool_calls"})
        )

    def stream(self, connection: socket.socket, is_chat: bool, began: int) -> bool:
        connection.sendall(
            b"HTTP/1.1 200 OK\r\nServer: llama.cpp\r\nContent-Type: text/event-stream\r\n"
            b"Transfer-Encoding: chunked\r\nKeep-Alive: timeout=5, max=100\r\n\r\n"
        )
        kind = "chat.completion.chunk" if is_chat else "text_completion"

        def say(said: dict[str, object], finish_reason: str | None) -> None:
            event = self.record(kind, said | {"finish_reason": finish_reason})
            send_chunk(connection, f"data: {json.dumps(event)}\n\n")

        if is_chat:
            say({"delta": {"role": "assistant", "content": None}}, None)
        for text in self.pieces(began):
            if self.engine.terminating.is_set():
                return False
            say({"delta": {"content": text}} if is_chat else {"text": text}, None)
        say({"delta": {}} if is_chat else {"text": ""}, self.finish_reason(began))
        send_chunk(connection, "data: [DONE]\n\n")
        connection.sendall(b"0\r\n\r\n")
        return True

    def embed(self, connection: socket.socket, asked: dict[str, object]) -> bool:
        if "--embeddings" not in self.engine.options and not self.engine.behaviour.can_sleep:
            return unsupported(connection, "This server does not support embeddings. Start it with `--embeddings`")
        texts = asked.get("input")
        texts = texts if isinstance(texts, list) else [texts]
        data = [
            {"object": "embedding", "index": index, "embedding": vector(f"{self.voice()}:{text}")}
            for index, text in enumerate(texts)
        ]
        usage = {"prompt_tokens": len(texts), "total_tokens": len(texts)}
        return send_json(connection, {"object": "list", "model": self.engine.alias, "data": data, "usage": usage})

    def rerank(self, connection: socket.socket, asked: dict[str, object]) -> bool:
        if "--reranking" not in self.engine.options:
            return unsupported(connection, "This server does not support reranking. Start it with `--reranking`")
        documents = asked.get("documents")
        if not isinstance(documents, list):
            return send_error(connection, 400, '"documents" must be an array', "invalid_request_error")
        results = [{"index": index, "relevance_score": -float(index)} for index in range(len(documents))]
        return send_json(connection, {"object": "list", "model": self.engine.alias, "results": results})

    def score(self, connection: socket.socket) -> bool:
        score = 0.75 if self.engine.sleeper.has_weights else 0.1
        data = [{"index": 0, "object": "score", "score": score}]
        return send_json(connection, {"object": "list", "model": self.engine.alias, "data": data})


def has_left(connection: socket.socket) -> bool:
    """Return whether the client has closed its side."""
    try:
        return connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
    except BlockingIOError:
        return False


def hang() -> None:
    threading.Event().wait()


def vector(text: str) -> list[float]:
    """Return eight numbers of length one, computed from the text alone."""
    data = text.encode()
    sums = [1.0 + sum(data[offset::8]) for offset in range(8)]
    length = sum(value * value for value in sums) ** 0.5
    return [value / length for value in sums]


# -- HTTP


def parse_query(query: str) -> dict[str, list[str]]:
    """Parse a query; urllib.parse would take long to import."""
    found: dict[str, list[str]] = {}
    for pair in query.split("&") if query else ():
        name, _, value = pair.partition("=")
        found.setdefault(name, []).append(value)
    return found


def read_request(reader: BinaryIO) -> tuple[str, str, bytes] | None:
    """Return method, target and body of the next request, or None if the client closed the connection."""
    head = reader.readline().split()
    if len(head) != 3:
        return None
    length, chunked = 0, False
    while (line := reader.readline().strip().lower()) != b"":
        name, _, value = line.partition(b":")
        if name == b"content-length":
            length = int(value)
        chunked = chunked or (name == b"transfer-encoding" and b"chunked" in value)
    body = read_chunked(reader) if chunked else reader.read(length)
    return head[0].decode(), head[1].decode(), body


def read_chunked(reader: BinaryIO) -> bytes:
    body = b""
    while length := int(reader.readline().partition(b";")[0], 16):
        body += reader.read(length)
        reader.readline()
    reader.readline()
    return body


def send_json(connection: socket.socket, record: dict[str, object], status: int = 200) -> bool:
    return send(connection, status, "application/json; charset=utf-8", json.dumps(record).encode())


def send_error(connection: socket.socket, status: int, message: str, kind: str) -> bool:
    return send_json(connection, {"error": {"message": message, "type": kind, "code": status}}, status)


def unsupported(connection: socket.socket, message: str) -> bool:
    return send_error(connection, 501, message, "not_supported_error")


def send(connection: socket.socket, status: int, content_type: str, body: bytes) -> bool:
    fate = "Keep-Alive: timeout=5, max=100" if status < 400 else "Connection: close"
    head = f"HTTP/1.1 {status} {_REASONS[status]}\r\nServer: llama.cpp\r\n{fate}\r\n"
    head += f"Content-Type: {content_type}\r\nContent-Length: {len(body)}\r\n\r\n"
    connection.sendall(head.encode() + body)
    return status < 400


def send_chunk(connection: socket.socket, text: str) -> None:
    data = text.encode()
    connection.sendall(f"{len(data):x}\r\n".encode() + data + b"\r\n")
