"""The fake engine sleeps like vLLM 0.32: the tests of the hooks depend on it."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.engines.running import Running, running
from tests.fakes.engine import install_fake_llama_server

_SECONDS = 30  # nothing here should need as long


class Bed:
    def __init__(self, folder: Path) -> None:
        self.model = folder / "tiny.gguf"
        self.model.write_bytes(b"GGUF")
        self.command = (str(install_fake_llama_server(folder)),)

    @contextmanager
    def engine(self, **behaviour: Any) -> Iterator[Running]:
        Path(f"{self.model}.fake.json").write_text(json.dumps({"can_sleep": True} | behaviour))
        with running(self.command, self.model) as server:
            yield server.wait_ready()


@pytest.fixture
def bed(tmp_path: Path) -> Bed:
    return Bed(tmp_path)


def say(server: Running) -> str:
    return str(server.post("/v1/completions").json()["choices"][0]["text"])


def is_sleeping(server: Running) -> bool:
    return bool(server.get("/is_sleeping").json()["is_sleeping"])


@contextmanager
def asking(server: Running, bed: Bed) -> Iterator[list[dict[str, Any]]]:
    """A running request; its choice is in the list afterwards."""
    answers: list[dict[str, Any]] = []

    def ask() -> None:
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(server.socket_path)), timeout=_SECONDS) as client:
            answers.append(client.post("http://engine/v1/completions", json={}).json()["choices"][0])

    asks = threading.Thread(target=ask)
    asks.start()
    while '"request"' not in Path(f"{bed.model}.events").read_text() and asks.is_alive():
        asks.join(0.002)
    yield answers
    asks.join(_SECONDS)


def test_level_1_keeps_the_weights(bed: Bed) -> None:
    with bed.engine() as server:
        assert server.post("/sleep?level=1&mode=wait").json() == {"status": "sleeping", "level": 1}
        assert is_sleeping(server)
        assert server.post("/wake_up").json() == {"status": "awake", "tags": None}
        assert (is_sleeping(server), say(server)) == (False, "tiny-0 tiny-1 tiny-2 ")


def test_level_2_without_weights_answers_200_with_garbage(bed: Bed) -> None:
    with bed.engine() as server:
        server.post("/sleep?level=2")
        assert server.post("/wake_up").json()["status"] == "awake"
        assert say(server).startswith("garbage")


def test_level_2_wakes_in_three_steps(bed: Bed) -> None:
    with bed.engine() as server:
        server.post("/sleep?level=2")
        assert server.post("/wake_up?tags=weights").json() == {"status": "sleeping", "tags": ["weights"]}
        assert is_sleeping(server), "a part is not awake"
        assert server.post("/collective_rpc", method="reload_weights").json() == {"results": [None]}
        assert server.post("/wake_up?tags=kv_cache").json()["status"] == "awake"
        assert (is_sleeping(server), say(server)) == (False, "tiny-0 tiny-1 tiny-2 ")


def test_what_changes_nothing_answers_200(bed: Bed) -> None:
    with bed.engine() as server:
        assert server.post("/wake_up").json()["status"] == "awake", "it was"
        server.post("/sleep?level=1")
        assert server.post("/sleep?level=2").status_code == 200
        assert server.post("/wake_up?tags=typo").json() == {"status": "sleeping", "tags": ["typo"]}
        server.post("/wake_up")
        assert say(server).startswith("tiny"), "it still slept at level 1"


@pytest.mark.parametrize("query", ["level=3", "mode=later"])
def test_what_there_is_not_is_refused(bed: Bed, query: str) -> None:
    with bed.engine() as server:
        assert server.post(f"/sleep?{query}").status_code == 400


def test_level_0_only_pauses(bed: Bed) -> None:
    with bed.engine() as server:
        server.post("/sleep?level=0")
        assert is_sleeping(server)
        assert server.post("/wake_up?tags=scheduling").json()["status"] == "awake"
        assert not is_sleeping(server)


@pytest.mark.parametrize(
    ("mode", "words", "reason"), [("wait", 5, "stop"), ("keep", 5, "stop"), ("abort", None, "abort")]
)
def test_answers_under_way(bed: Bed, mode: str, words: int | None, reason: str) -> None:
    with bed.engine(chunks=5, chunk_seconds=0.1) as server:
        with asking(server, bed) as answers:
            server.post(f"/sleep?mode={mode}")
            assert is_sleeping(server)
            server.post("/wake_up")
        assert answers[0]["finish_reason"] == reason
        said = len(answers[0]["text"].split())
        assert said == words or (words is None and said < 5)


def test_request_to_a_sleeping_engine_is_answered_after_the_wake(bed: Bed) -> None:
    with bed.engine() as server:
        server.post("/sleep")
        server.http.timeout = httpx.Timeout(0.2)
        with pytest.raises(httpx.ReadTimeout):
            say(server)
        server.http.timeout = httpx.Timeout(_SECONDS)
        server.post("/wake_up")
        assert say(server).startswith("tiny")


@pytest.mark.parametrize(("level", "state"), [(None, "awake"), (1, "weights_offloaded"), (2, "discard_all")])
def test_metrics_tell_the_state(bed: Bed, level: int | None, state: str) -> None:
    with bed.engine() as server:
        if level:
            server.post(f"/sleep?level={level}")
        (line,) = (line for line in server.get("/metrics").text.splitlines() if line.endswith(" 1.0"))
        assert f'sleep_state="{state}"' in line


def test_nvml_follows_it(bed: Bed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = tmp_path / "nvml"
    state.write_text("7 1:7\n")
    monkeypatch.setenv("MMD_FAKE_NVML", str(state))
    with bed.engine(weights_bytes=40, kv_bytes=2) as server:
        assert state.read_text() == f"7 1:7 @{server.process.pid}:42\n"
        server.post("/sleep")
        assert state.read_text() == f"7 1:7 @{server.process.pid}:0\n"
        server.post("/wake_up?tags=weights")
        assert state.read_text() == f"7 1:7 @{server.process.pid}:40\n"


def test_sigterm_while_it_loads_is_lost_and_sighup_is_not(bed: Bed) -> None:
    Path(f"{bed.model}.fake.json").write_text('{"never_ready": true, "lose_sigterm_while_loading": true}')
    with running(bed.command, bed.model) as server:
        server.wait_listening()
        server.process.terminate()
        assert server.get("/health").status_code == 503
        server.process.send_signal(signal.SIGHUP)
        assert server.wait() == -signal.SIGHUP
