"""What mmd relies on in every engine: the fake one, the embedded one, and llama-server if there is one."""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from mmd.engines.llama import find as llama_server
from mmd.engines.llama.engine import EMBEDDED, LLAMA_SERVER
from mmd.plan.engine import Installed
from tests import dashboard
from tests.engines.running import Running, running, stream_events
from tests.fakes.engine import install_fake_llama_server
from tests.tiny_models import tiny_embedding_gguf, tiny_gguf

pytestmark = pytest.mark.timeout(120)
# Ended by the handler, or by the signal itself if that came before the handler: clean for systemd either way.
CLEAN_EXITS = (0, -signal.SIGTERM)
QUESTION = [{"role": "user", "content": "hello"}]


def _real_llama_server() -> str | None:
    return os.environ.get("MMD_TEST_LLAMA_SERVER") or shutil.which("llama-server")


@pytest.fixture(
    params=[
        "fake",
        pytest.param("embedded", marks=pytest.mark.engine),
        pytest.param("llama-server", marks=pytest.mark.engine),
    ]
)
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Installed:
    match request.param:
        case "fake":
            return llama_server.probe(LLAMA_SERVER, str(install_fake_llama_server(tmp_path)))
        case "embedded":
            pytest.importorskip("xllamacpp")
            found = EMBEDDED.find(None)
            assert found
            return found
        case _:
            program = _real_llama_server()
            if program is None:
                pytest.skip("no llama-server on PATH, nor in MMD_TEST_LLAMA_SERVER")
            return llama_server.probe(LLAMA_SERVER, program)


@pytest.fixture
def chat_model(tmp_path: Path) -> Path:
    return tiny_gguf(tmp_path / "tiny.gguf")


def test_find_learns_version_and_flags(engine: Installed) -> None:
    assert engine.version != "unknown"
    assert {
        "-m",
        "--model",
        "--host",
        "--alias",
        "--mmproj",
        "--embedding",
        "--rerank",
        "-b",
        "-ub",
        "-c",
    } <= engine.flags
    assert {"--threads-http", "--cache-ram", "--metrics", "--no-webui"} <= engine.flags
    assert engine.engine.formats == ("gguf",)


def test_help_lists_the_flags_that_find_reported(engine: Installed) -> None:
    shown = subprocess.run((*engine.command, "--help"), capture_output=True, text=True, timeout=30, check=True)
    assert llama_server.parse_flags(shown.stdout) >= engine.flags - {"-h", "--help"}


def test_unknown_flag_is_refused_by_name(engine: Installed, chat_model: Path) -> None:
    with running(engine.command, chat_model, "--num-scheduler-steps", "10") as server:
        assert server.wait() == 1
        assert "invalid argument: --num-scheduler-steps" in server.stderr()


def test_every_flag_that_mmd_emits_is_accepted(engine: Installed, chat_model: Path) -> None:
    flags = (
        "-b",
        "512",
        "-ub",
        "512",
        "-c",
        "256",
        "--threads-http",
        "16",
        "--cache-ram",
        "64",
        "--no-webui",
    )
    with running(engine.command, chat_model, *flags, "--metrics") as server:
        told = server.wait_ready().get("/metrics").text
        counters = {*LLAMA_SERVER.input_token_counters, *LLAMA_SERVER.output_token_counters}
        needed = dashboard.names("llamacpp:") | counters
        assert {name for name in needed if name not in told} == set()


def test_flags_of_a_share_are_accepted(engine: Installed, chat_model: Path) -> None:
    """Two values each, as for a model on two GPUs; the embedded engine runs on the CPU and has neither flag."""
    words = ("--fit-target", "512,1024", "--tensor-split", "3000,1000")
    flags = words if engine.engine is LLAMA_SERVER else ()
    assert {word for word in flags if word.startswith("--")} <= engine.flags
    with running(engine.command, chat_model, "-c", "512", *flags) as server:
        server.wait_ready()


def test_answers_503_or_200_and_nothing_else(engine: Installed, chat_model: Path) -> None:
    with running(engine.command, chat_model) as server:
        first = server.wait_listening()
        assert first.status_code in (200, 503)
        if first.status_code == 503:
            assert first.json()["error"]["message"] == "Loading model"
        server.wait_ready()


def test_goes_by_its_alias(engine: Installed, chat_model: Path) -> None:
    with running(engine.command, chat_model, alias="qwen3-8b") as server:
        models = server.wait_ready().get("/v1/models").json()
        assert [model["id"] for model in models["data"]] == ["qwen3-8b"]


def test_metrics_are_off_without_the_flag(engine: Installed, chat_model: Path) -> None:
    with running(engine.command, chat_model) as server:
        assert server.wait_ready().get("/metrics").status_code == 501


def test_chat_answers_at_once(engine: Installed, chat_model: Path) -> None:
    with running(engine.command, chat_model) as server:
        answer = server.wait_ready().post("/v1/chat/completions", messages=QUESTION, max_tokens=4)
        assert answer.status_code == 200
        (choice,) = answer.json()["choices"]
        assert choice["message"]["role"] == "assistant"
        assert answer.json()["usage"]["completion_tokens"] > 0


def test_chat_streams(engine: Installed, chat_model: Path) -> None:
    with running(engine.command, chat_model) as server:
        answer = server.wait_ready().post("/v1/chat/completions", messages=QUESTION, max_tokens=4, stream=True)
        assert answer.headers["content-type"] == "text/event-stream"
        chunks = stream_events(answer)
        first, last = chunks[0], chunks[-1]  # the same chunk if a model of random weights ends at once
        assert first["object"] == "chat.completion.chunk"
        # Not always a role: llama.cpp leaves it out if the first token is half a character.
        assert first["choices"][0]["delta"].keys() <= {"role", "content"}
        assert last["choices"][0]["finish_reason"] in ("stop", "length")


@pytest.mark.parametrize("stream", [False, True])
def test_completion_answers(engine: Installed, chat_model: Path, stream: bool) -> None:
    with running(engine.command, chat_model) as server:
        answer = server.wait_ready().post("/v1/completions", prompt="hello", max_tokens=4, stream=stream)
        record = stream_events(answer)[0] if stream else answer.json()
        assert record["object"] == "text_completion"
        assert isinstance(record["choices"][0]["text"], str)


def test_embeddings_have_length_one(engine: Installed, tmp_path: Path) -> None:
    model = tiny_embedding_gguf(tmp_path / "embedding.gguf")
    with running(engine.command, model, "--embedding") as server:
        answer = server.wait_ready().post("/v1/embeddings", input=["a cat", "a dog"])
        vectors = [item["embedding"] for item in answer.json()["data"]]
        assert len(vectors) == 2
        assert all(math.hypot(*vector) == pytest.approx(1.0, abs=1e-3) for vector in vectors)


def test_embeddings_of_a_chat_model_are_refused(engine: Installed, chat_model: Path) -> None:
    with running(engine.command, chat_model) as server:
        answer = server.wait_ready().post("/v1/embeddings", input="a cat")
        assert answer.status_code == 501
        assert answer.headers["connection"] == "close"


def test_broken_json_is_the_callers_fault(engine: Installed, chat_model: Path) -> None:
    with running(engine.command, chat_model) as server:
        answer = server.wait_ready().http.post("/v1/chat/completions", content=b"{")
        assert answer.status_code == 400


def test_sigterm_ends_an_idle_engine(engine: Installed, chat_model: Path) -> None:
    with running(engine.command, chat_model) as server:
        server.wait_ready()
        assert server.terminate() in CLEAN_EXITS


def test_stopping_cuts_a_stream_short(engine: Installed, chat_model: Path) -> None:
    """llama-server stops at SIGTERM, or waits for the client to disconnect, in about one run of two each."""
    slow_down_fake(chat_model)
    with running(engine.command, chat_model) as server:
        lines = long_stream(server.wait_ready())
        assert next(lines).startswith("data: ")
        assert server.stop_like_systemd(engine.engine.stop_seconds) in (*CLEAN_EXITS, -signal.SIGKILL)
        assert "data: [DONE]" not in until_cut(lines)


def long_stream(server: Running) -> Iterator[str]:
    question = {"messages": QUESTION, "max_tokens": -1, "stream": True, "ignore_eos": True}
    with server.http.stream("POST", "/v1/chat/completions", json=question) as answer:
        yield from answer.iter_lines()


def until_cut(lines: Iterator[str]) -> list[str]:
    """Return what still arrives: some engines end the body properly, others abort the connection."""
    read: list[str] = []
    with contextlib.suppress(httpx.TransportError):
        read.extend(lines)
    return read


def slow_down_fake(model: Path) -> None:
    Path(f"{model}.fake.json").write_text('{"chunks": 1000, "chunk_seconds": 0.05}')


def test_stale_socket_is_refused(engine: Installed, chat_model: Path) -> None:
    with running(engine.command, chat_model) as server:
        server.wait_ready()
        server.process.kill()
        server.wait()
    assert chat_model.with_suffix(".sock").is_socket()
    with running(engine.command, chat_model) as server:
        assert server.wait() == 1
        assert "couldn't bind" in server.stderr()


@pytest.mark.parametrize("content", [b"int main;", b"", b"GG"])
def test_broken_model_ends_the_engine_with_its_reason(engine: Installed, tmp_path: Path, content: bytes) -> None:
    model = tmp_path / "broken.gguf"
    model.write_bytes(content)
    with running(engine.command, model) as server:
        assert server.wait() == 1
        assert "exiting due to model loading error" in server.stderr()


def test_missing_model_ends_the_engine(engine: Installed, tmp_path: Path) -> None:
    with running(engine.command, tmp_path / "gone.gguf") as server:
        assert server.wait() == 1
        assert "gone.gguf" in server.stderr()


@pytest.mark.engine
@pytest.mark.parametrize("stream", [False, True])
def test_embedded_stops_at_once_whatever_is_in_flight(chat_model: Path, stream: bool) -> None:
    """llama-server would wait for these clients."""
    pytest.importorskip("xllamacpp")
    found = EMBEDDED.find(None)
    assert found
    with running(found.command, chat_model) as server, socket.socket(socket.AF_UNIX) as client:
        server.wait_ready()
        client.connect(str(server.socket_path))
        question = json.dumps({"prompt": "hello", "n_predict": -1, "ignore_eos": True, "stream": stream}).encode()
        client.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: engine\r\n")
        client.sendall(f"Content-Length: {len(question)}\r\n\r\n".encode() + question)
        server.wait_busy()
        assert server.terminate() == 0
