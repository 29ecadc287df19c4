"""The misbehaviour of the fake engine; what it shares with the real ones is tested in tests/engines."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.engines.running import Running, running
from tests.fakes.engine import install_fake_llama_server


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.gguf"
    path.write_bytes(b"GGUF")
    return path


@pytest.fixture
def command(tmp_path: Path) -> tuple[str, ...]:
    return (str(install_fake_llama_server(tmp_path)),)


def misbehave(model: Path, **behaviour: Any) -> None:
    Path(f"{model}.fake.json").write_text(json.dumps(behaviour))


def events(log: Path) -> list[str]:
    return [json.loads(line)["event"] for line in log.read_text().splitlines()]


def ask(server: Running) -> httpx.Response:
    return server.post("/v1/chat/completions", messages=[])


def test_answer_names_the_alias(command: tuple[str, ...], model: Path) -> None:
    with running(command, model, alias="qwen3") as server:
        assert ask(server.wait_ready()).json()["choices"][0]["message"]["content"] == "qwen3-0 qwen3-1 qwen3-2 "


def test_rerank_orders_by_position(command: tuple[str, ...], model: Path) -> None:
    with running(command, model, "--rerank") as server:
        answer = server.wait_ready().post("/v1/rerank", query="x", documents=["a", "b"])
        assert [result["index"] for result in answer.json()["results"]] == [0, 1]


def test_log_tells_a_whole_life(command: tuple[str, ...], model: Path) -> None:
    with running(command, model) as server:
        ask(server.wait_ready())
        assert server.terminate() == 0
    lines = [json.loads(line) for line in Path(f"{model}.events").read_text().splitlines()]
    assert [line["event"] for line in lines] == ["start", "load-begin", "ready", "request", "exit"]
    assert {line["model"] for line in lines} == {"tiny"}
    assert {line["pid"] for line in lines} == {server.process.pid}
    assert [line["t"] for line in lines] == sorted(line["t"] for line in lines)


def test_log_goes_where_the_environment_says(
    command: tuple[str, ...], model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MMD_FAKE_EVENTS", str(tmp_path / "all.events"))
    with running(command, model) as server:
        server.wait_ready()
    assert events(tmp_path / "all.events") == ["start", "load-begin", "ready"]


def test_two_on_one_gpu_are_noticed(
    command: tuple[str, ...], model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MMD_FAKE_GPU", str(tmp_path / "gpu"))
    other = tmp_path / "other.gguf"
    other.write_bytes(b"GGUF")
    with running(command, model) as first:
        first.wait_ready()
        with running(command, other) as second:
            second.wait_ready()
    assert "overlap" not in events(Path(f"{model}.events"))
    assert "overlap" in events(Path(f"{other}.events"))


def test_killed_engine_frees_the_gpu(
    command: tuple[str, ...], model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MMD_FAKE_GPU", str(tmp_path / "gpu"))
    for _ in range(2):
        with running(command, model) as server:
            server.wait_ready()
        model.with_suffix(".sock").unlink()
    assert "overlap" not in events(Path(f"{model}.events"))


def test_loading_answers_503_and_dies_of_sigterm(command: tuple[str, ...], model: Path) -> None:
    misbehave(model, never_ready=True)
    with running(command, model) as server:
        assert server.wait_listening().status_code == 503
        assert ask(server).json()["error"]["message"] == "Loading model"
        assert server.terminate() == -signal.SIGTERM
    assert events(Path(f"{model}.events")) == ["start", "load-begin", "exit"]


def test_loading_takes_its_time(command: tuple[str, ...], model: Path) -> None:
    misbehave(model, load_seconds=0.2)
    with running(command, model) as server:
        server.wait_ready()
    begin, ready = (json.loads(line) for line in Path(f"{model}.events").read_text().splitlines()[1:3])
    assert ready["t"] - begin["t"] >= 200_000_000


def test_refused_option_is_one_that_help_lists(command: tuple[str, ...], model: Path) -> None:
    misbehave(model, refuses=["--metrics"])
    with running(command, model) as engine:
        assert engine.wait_ready()
    with running(command, model, "--metrics") as engine:
        assert engine.wait() == 1
        assert "error: invalid argument: --metrics" in engine.stderr()


def test_exit_at_once_says_its_line(command: tuple[str, ...], model: Path) -> None:
    misbehave(model, exit_at_once={"status": 3, "stderr": "ggml_cuda_init: failed"})
    with running(command, model) as server:
        assert server.wait() == 3
        assert server.stderr() == "ggml_cuda_init: failed\n"


def test_exit_while_loading_looks_like_a_failed_load(command: tuple[str, ...], model: Path) -> None:
    misbehave(model, exit_while_loading_seconds=0.01)
    with running(command, model) as server:
        assert server.wait() == 1
        assert "unable to allocate" in server.stderr()


def test_die_when_ready(command: tuple[str, ...], model: Path) -> None:
    misbehave(model, die_when_ready_seconds=0.1)
    with running(command, model) as server:
        assert server.wait() == -signal.SIGKILL
    assert events(Path(f"{model}.events"))[-1] == "ready"


def test_die_on_request(command: tuple[str, ...], model: Path) -> None:
    misbehave(model, die_on_request=True)
    with running(command, model) as server:
        with pytest.raises(httpx.TransportError):
            ask(server.wait_ready())
        assert server.wait() == -signal.SIGKILL


def test_hang_on_request_keeps_health_and_outlives_sigterm(command: tuple[str, ...], model: Path) -> None:
    misbehave(model, hang_on_request=True)
    with running(command, model) as server:
        server.wait_ready().http.timeout = httpx.Timeout(0.3)
        with pytest.raises(httpx.ReadTimeout):
            ask(server)
        assert server.get("/health").status_code == 200
        assert server.stop_like_systemd(1) == -signal.SIGKILL


def test_ignored_sigterm_needs_sigkill(command: tuple[str, ...], model: Path) -> None:
    misbehave(model, ignore_sigterm=True)
    with running(command, model) as server:
        server.wait_ready()
        assert server.stop_like_systemd(1) == -signal.SIGKILL


def test_sleep_gives_the_gpu_back_until_woken(
    command: tuple[str, ...], model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MMD_FAKE_GPU", str(tmp_path / "gpu"))
    misbehave(model, can_sleep=True)
    other = tmp_path / "other.gguf"
    other.write_bytes(b"GGUF")
    with running(command, model) as server:
        server.wait_ready().post("/sleep")
        assert server.get("/is_sleeping").json() == {"is_sleeping": True}
        with running(command, other) as second:
            second.wait_ready()
        server.post("/wake_up")
        assert ask(server).status_code == 200
    assert events(Path(f"{model}.events")) == ["start", "load-begin", "ready", "sleep", "wake-begin", "wake", "request"]
    assert "overlap" not in events(Path(f"{other}.events"))


def test_lines_on_stdout(command: tuple[str, ...], model: Path) -> None:
    misbehave(model, stdout_lines=["load: 10 %", "load: 90 %"])
    with running(command, model) as server:
        server.wait_ready()
        assert server.stderr().startswith("load: 10 %\nload: 90 %\n")


def test_misspelt_behaviour_is_refused(command: tuple[str, ...], model: Path) -> None:
    misbehave(model, load_second=1)
    with running(command, model) as server:
        assert server.wait() == 1
        assert "no such behaviour: load_second" in server.stderr()


def test_runs_isolated_and_without_site_packages(command: tuple[str, ...]) -> None:
    assert f'"{sys.executable}" -I -S ' in Path(*command).read_text()
