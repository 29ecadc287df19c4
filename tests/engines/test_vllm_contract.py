"""What mmd relies on in vLLM: the fake one, and the real one if MMD_TEST_VLLM names it.

The real one takes half a minute to start, so most tests share one: `Keeper` starts it again if a test ended it.
"""

from __future__ import annotations

import asyncio
import errno
import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from mmd.engines.vllm.engine import VLLM
from mmd.registry.record import ModelType
from mmd.registry.store import Registry
from tests import dashboard
from tests.engines.running import Running, started
from tests.fakes.vllm import install_fake_vllm
from tests.tiny_models import tiny_folder
from tests.vllm_options import sections, spellings

pytestmark = pytest.mark.timeout(200)
QUESTION = {"model": "tiny", "messages": [{"role": "user", "content": "hello"}], "ignore_eos": True}
CONTEXT = 131072
# Nothing is compiled, and little memory is taken.
SMALL = ("-O0", "--kv-cache-memory-bytes", "64M", "--max-num-seqs", "4")


def real_vllm() -> str:
    program = os.environ.get("MMD_TEST_VLLM")
    if not program:
        pytest.skip("no vLLM in MMD_TEST_VLLM")
    return program


class Vllm:
    """A vLLM, fake or real, and a folder for its files."""

    def __init__(self, program: str, folder: Path) -> None:
        self.program = program
        self.folder = folder
        self.model = tiny_folder(folder / "tiny", context=CONTEXT)
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "VLLM_SERVER_DEV_MODE": "1",
            "VLLM_NO_USAGE_STATS": "1",
            "HF_HUB_OFFLINE": "1",
            "NO_COLOR": "1",
            "OMP_NUM_THREADS": "1",
        }

    def start(self, name: str, *more: str, model: Path | None = None) -> AbstractContextManager[Running]:
        """Serve the tiny model, or another one, on a socket of this name."""
        path = self.folder / f"{name}.sock"
        words = ("serve", str(model or self.model), "--uds", str(path), "--served-model-name", "tiny", *SMALL, *more)
        return started((self.program, *words), path, self.environment)

    def behave(self, **behaviour: Any) -> None:
        """Set the behaviour of the fake from its next start on; the real one ignores it."""
        Path(f"{self.model}.fake.json").write_text(json.dumps(behaviour))


class Keeper:
    def __init__(self, vllm: Vllm, stack: ExitStack) -> None:
        self._vllm = vllm
        self._stack = stack
        self._running: Running | None = None
        self._starts = 0
        self.first_status = 0  # of the first response to /health

    def serving(self) -> Running:
        """Return the shared vLLM; connections that this test opens are closed with it."""
        if self._running is None or self._running.process.poll() is not None:
            self._starts += 1
            self._vllm.behave(chunks=30, chunk_seconds=0.01)
            self._running = self._stack.enter_context(self._vllm.start(f"shared-{self._starts}"))
            self.first_status = self._running.wait_listening().status_code
            self._running.http.close()
        return Running(self._running.process, self._running.socket_path, self._running.stderr_path)


@pytest.fixture(scope="module", params=["fake", pytest.param("real", marks=pytest.mark.engine)])
def vllm(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Vllm:
    folder = tmp_path_factory.mktemp("v")
    if request.param == "fake":
        return Vllm(str(install_fake_vllm(folder / "venv")), folder)
    return Vllm(real_vllm(), folder)


@pytest.fixture(scope="module")
def keeper(vllm: Vllm) -> Iterator[Keeper]:
    with ExitStack() as stack:
        yield Keeper(vllm, stack)


@pytest.fixture
def engine(keeper: Keeper) -> Iterator[Running]:
    """An awake vLLM that serves."""
    running = keeper.serving()
    yield running
    if running.process.poll() is None:
        running.post("/wake_up")
    running.http.close()


def test_first_answer_is_that_it_is_ready(engine: Running, keeper: Keeper) -> None:
    """It never answers 503: it refuses connections until the model is loaded."""
    assert keeper.first_status == 200


def test_tells_version_and_context(engine: Running) -> None:
    assert engine.get("/version").json() == {"version": "0.32.0"}
    (model,) = engine.get("/v1/models").json()["data"]
    assert (model["id"], model["max_model_len"]) == ("tiny", CONTEXT)


def test_chat_answers_under_its_served_name(engine: Running) -> None:
    answer = engine.post("/v1/chat/completions", **QUESTION, max_tokens=4)
    assert answer.status_code == 200
    assert answer.json()["model"] == "tiny"
    (choice,) = answer.json()["choices"]
    assert choice["message"]["role"] == "assistant"


def test_another_name_is_refused(engine: Running) -> None:
    answer = engine.post("/v1/chat/completions", **QUESTION | {"model": "other"})
    assert answer.status_code == 404
    assert "The model `other` does not exist" in answer.json()["error"]["message"]


def test_sleeps_wakes_and_is_healthy_throughout(engine: Running) -> None:
    assert not _is_sleeping(engine)
    for _ in range(2):  # a second sleep does nothing
        assert engine.post("/sleep?level=1&mode=wait").json() == {"status": "sleeping", "level": 1}
        assert _is_sleeping(engine)
        assert engine.get("/health").status_code == 200
    told = engine.get("/metrics").text
    assert re.search(r'sleep_state="weights_offloaded"\} 1', told)
    needed = dashboard.names("vllm:") | {*VLLM.input_token_counters, *VLLM.output_token_counters}
    assert {name for name in needed if name not in told} == set()
    for _ in range(2):
        assert engine.post("/wake_up").json()["status"] == "awake"
        assert not _is_sleeping(engine)


def test_unknown_tag_answers_200_and_wakes_nothing(engine: Running) -> None:
    engine.post("/sleep?level=1&mode=wait")
    answer = engine.post("/wake_up?tags=typo")
    assert (answer.status_code, answer.json()["status"]) == (200, "sleeping")
    assert _is_sleeping(engine)


@pytest.mark.parametrize("query", ["level=3", "mode=gently"])
def test_sleep_of_an_unknown_kind_is_refused(engine: Running, query: str) -> None:
    assert engine.post(f"/sleep?{query}").status_code == 400
    assert not _is_sleeping(engine)


def test_level_2_wakes_in_three_steps(engine: Running) -> None:
    assert engine.post("/sleep?level=2&mode=wait").status_code == 200
    engine.post("/wake_up?tags=weights")
    assert _is_sleeping(engine)
    assert engine.post("/collective_rpc", method="reload_weights").status_code == 200
    engine.post("/wake_up?tags=kv_cache")
    assert not _is_sleeping(engine)


@pytest.mark.parametrize(
    ("mode", "max_tokens", "reasons"), [("wait", 1000, ("length", "stop")), ("abort", 100_000, ("abort",))]
)
async def test_sleep_ends_a_generation_as_its_mode_says(
    engine: Running, mode: str, max_tokens: int, reasons: tuple[str, ...]
) -> None:
    question = QUESTION | {"max_tokens": max_tokens, "stream": True}
    async with _client(engine) as client:
        async with client.stream("POST", "/v1/chat/completions", json=question) as answer:
            lines = answer.aiter_lines()
            first = await anext(lines)
            sleep = asyncio.create_task(client.post(f"/sleep?level=1&mode={mode}"))
            rest = [line async for line in lines]
        assert (await sleep).status_code == 200
        assert first.startswith("data: ")
        *_, last, done = [line.removeprefix("data: ") for line in rest if line]
        assert done == "[DONE]"
        assert json.loads(last)["choices"][0]["finish_reason"] in reasons


async def test_request_to_a_sleeping_vllm_hangs_until_it_is_awake(engine: Running) -> None:
    """The reason that mmd never forwards a request to a sleeping vLLM."""
    async with _client(engine) as client:
        await client.post("/sleep?level=1&mode=wait")
        answer = asyncio.create_task(client.post("/v1/chat/completions", json=QUESTION | {"max_tokens": 4}))
        _, waiting = await asyncio.wait({answer}, timeout=0.5)
        assert waiting
        await client.post("/wake_up")
        assert (await answer).status_code == 200


async def test_sigterm_ends_it_in_order_once_its_clients_have_gone(engine: Running) -> None:
    """With clients it usually takes half a second, and sometimes as long as they wait."""
    question = QUESTION | {"max_tokens": 100_000, "stream": True}  # a minute
    async with _client(engine) as client, client.stream("POST", "/v1/chat/completions", json=question) as answer:
        await anext(answer.aiter_lines())
        engine.process.terminate()
    assert await asyncio.to_thread(engine.wait) == 0


@pytest.mark.engine
def test_killed_engine_core_ends_the_whole_vllm(tmp_path: Path) -> None:
    """The OOM killer may do this: the server notices, and ends with the status of a regular stop."""
    with Vllm(real_vllm(), tmp_path).start("core") as engine:
        engine.wait_ready()
        (core,) = [
            child
            for child in psutil.Process(engine.process.pid).children()
            if "EngineCore" in " ".join(child.cmdline())
        ]
        core.kill()
        assert engine.wait() == 0
        assert engine.socket_path.exists()


def test_refuses_connections_and_loses_sigterm_while_it_loads(vllm: Vllm) -> None:
    """The reason that a starting unit is stopped with another signal."""
    vllm.behave(load_seconds=100)
    with vllm.start("loading") as engine:
        engine.wait_said("(EngineCore")  # before that a SIGTERM ends it
        assert engine.connect() == errno.ECONNREFUSED
        engine.process.terminate()
        with pytest.raises(subprocess.TimeoutExpired):
            engine.process.wait(2)
        assert engine.connect() == errno.ECONNREFUSED
        engine.process.send_signal(signal.SIGHUP)
        assert engine.wait() == -signal.SIGHUP


def test_stale_socket_is_refused(vllm: Vllm) -> None:
    vllm.behave()
    (vllm.folder / "stale.sock").touch()
    with vllm.start("stale") as engine:
        assert engine.wait() == 1
        assert "[Errno 98] Address already in use" in engine.stderr()


@pytest.mark.parametrize(
    ("words", "status", "reason"),
    [
        (("--num-scheduler-steps", "10"), 2, "unrecognized arguments: --num-scheduler-steps 10"),
        (("--enable-auto-tool-choice", "--tool-call-parser", "none"), 1, "invalid tool call parser: none (chose from"),
    ],
)
def test_unknown_words_end_it_before_it_takes_the_socket(
    vllm: Vllm, words: tuple[str, ...], status: int, reason: str
) -> None:
    with vllm.start("refused", *words) as engine:
        assert engine.wait() == status
        assert reason in engine.stderr()
        assert not engine.socket_path.exists()


def test_broken_model_ends_it_with_its_reason(vllm: Vllm, tmp_path: Path) -> None:
    config = tiny_folder(tmp_path / "broken") / "config.json"
    config.write_text("{")
    with vllm.start("broken", model=config.parent) as engine:
        assert engine.wait() == 1
        assert str(config.parent) in engine.stderr()


@pytest.mark.engine
def test_fake_knows_every_flag_of_the_real_one() -> None:
    shown = subprocess.run(
        (real_vllm(), "serve", "--help=all"), capture_output=True, text=True, timeout=100, check=True
    )
    lists = sections()
    assert _flags(shown.stdout) - {"--help"} == {
        name for name in spellings(lists["engine"] + lists["server"]) if name.startswith("--")
    }


@pytest.mark.parametrize("embedding", [False, True])
def test_mmd_knows_what_the_tiny_models_are(tmp_path: Path, embedding: bool) -> None:
    Registry().add(tiny_folder(tmp_path / "tiny", embedding=embedding), id="tiny")
    assert Registry().get("tiny").facts.type is (ModelType.EMBEDDING if embedding else ModelType.CHAT)


def _is_sleeping(engine: Running) -> bool:
    return bool(engine.get("/is_sleeping").json()["is_sleeping"])


def _client(engine: Running) -> httpx.AsyncClient:
    transport = httpx.AsyncHTTPTransport(uds=str(engine.socket_path))
    return httpx.AsyncClient(transport=transport, base_url="http://engine", timeout=60)


def _flags(shown: str) -> set[str]:
    """Return the options at the beginning of a line of --help."""
    heads = [line.strip().partition("  ")[0] for line in shown.splitlines() if line.startswith("  -")]
    return {name for head in heads for name in re.findall(r"(?<![\w-])--[a-z][\w-]*", head)}
