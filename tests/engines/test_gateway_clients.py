"""The usual clients of the gateway: the official openai client, and curl.

Over fake engines and over real ones, swapped as the requests arrive: `a` is vLLM's, `c` llama.cpp's, and `e` embeds.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam, ChatCompletionToolParam

from mmd.paths import config_file
from mmd.registry.store import Registry
from tests.fakes.engine import install_fake_llama_server
from tests.fakes.vllm import install_fake_vllm
from tests.tiny_models import tiny_embedding_gguf, tiny_folder, tiny_gguf
from tests.user_manager import UserManager

pytestmark = [pytest.mark.timeout(400), pytest.mark.manager]

REPOSITORY = Path(__file__).parents[2]
# The template of the tiny model names no tools, so mmd knows no parser for it; without a parser vLLM refuses tools.
ARGUMENTS = (
    *("-O0", "--kv-cache-memory-bytes", "64M", "--max-num-seqs", "4"),
    *("--enable-auto-tool-choice", "--tool-call-parser", "hermes"),
)
# The models know no language: their output is decided by the schema.
UNITS = ["celsius", "fahrenheit"]
TOOL: ChatCompletionToolParam = {
    "type": "function",
    "function": {
        "name": "weather",
        "strict": True,  # otherwise vLLM accepts any JSON as the arguments
        "parameters": {
            "type": "object",
            "properties": {"unit": {"type": "string", "enum": UNITS}},
            "required": ["unit"],
            "additionalProperties": False,
        },
    },
}
# llama.cpp lets a model talk before it calls a tool, which one of random weights does forever: so the mark of a call is
# a single letter here, and the first one that it has to produce.
CALL_MARK = "~"
CHAT_TEMPLATE = """\
{%- for tool in tools or [] %}{{ tool | tojson }}{% endfor %}
{%- for message in messages %}{{ "<" + message.role + ">" }}
{%- if message.content is string %}{{ message.content }}{% endif %}
{%- for call in message.tool_calls or [] %}
{{- '~{"name": "' + call.function.name + '", "arguments": ' + (call.function.arguments | tojson) + '}~' }}
{%- endfor %}{{- "</>\\n" }}{% endfor %}
{%- if add_generation_prompt %}{{ "<assistant>" }}{% endif %}
"""
HELLO: list[ChatCompletionMessageParam] = [{"role": "user", "content": "hello"}]


@dataclass(frozen=True, slots=True)
class EnginePlan:
    url: str
    is_real: bool

    def client(self) -> openai.OpenAI:
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key="none", max_retries=0, timeout=120)


@pytest.fixture(params=["fake", pytest.param("real", marks=pytest.mark.engine)])
def served(request: pytest.FixtureRequest, systemd: UserManager, tmp_path: Path) -> Iterator[EnginePlan]:
    """A running gateway with three models that are not resident yet."""
    if request.param == "fake":
        vllm, llama_server = install_fake_vllm(tmp_path / "venv"), install_fake_llama_server(tmp_path)
    else:
        vllm, llama_server = _real()
    template = tmp_path / "template.jinja"
    template.write_text(CHAT_TEMPLATE)
    of_c = ["--chat-template-file", str(template)] if request.param == "real" else []
    systemd.systemctl("set-environment", f"MMD_FAKE_EVENTS={tmp_path / 'events'}", "OMP_NUM_THREADS=1")
    Registry().add(tiny_folder(tmp_path / "a"), id="a")
    Registry().add(tiny_gguf(tmp_path / "c.gguf", name="c"), id="c")
    Registry().add(tiny_embedding_gguf(tmp_path / "e.gguf"), id="e")
    config_file().parent.mkdir(parents=True)
    config_file().write_text(
        f'[engines]\nvllm = "{vllm}"\nllama-server = "{llama_server}"\n'
        f'[models.a]\naliases = ["gpt-4o", "org/name"]\narguments = {json.dumps(ARGUMENTS)}\n'
        f'[models.c]\nengine = "llama-server"\naliases = ["gpt-4o-mini"]\narguments = {json.dumps(of_c)}\n'
        '[models.e]\nengine = "llama-server"\naliases = ["text-embedding-3-small"]\n'
    )
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        listen = f"127.0.0.1:{probe.getsockname()[1]}"
    process = subprocess.Popen((sys.executable, "-m", "mmd", "gateway", "--listen", listen), cwd=REPOSITORY)
    try:
        _wait_until_healthy(listen, process)
        yield EnginePlan(f"http://{listen}", request.param == "real")
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def _real() -> tuple[Path, Path]:
    vllm = os.environ.get("MMD_TEST_VLLM")
    llama_server = os.environ.get("MMD_TEST_LLAMA_SERVER") or shutil.which("llama-server")
    if not vllm or not llama_server:
        pytest.skip("no vLLM in MMD_TEST_VLLM, or no llama-server on PATH nor in MMD_TEST_LLAMA_SERVER")
    return Path(vllm), Path(llama_server)


def _wait_until_healthy(listen: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 30
    while process.poll() is None and time.monotonic() < deadline:
        try:
            httpx.get(f"http://{listen}/health").raise_for_status()
        except httpx.ConnectError:
            time.sleep(0.02)
        else:
            return
    raise AssertionError("the gateway does not answer")


def test_clients_are_served_by_both_engines_through_swaps(served: EnginePlan) -> None:
    """All in one test: a real vLLM takes half a minute to start."""
    with served.client() as client:
        _lists_names(client)
        for name, model_id in (("gpt-4o", "a"), ("c", "c"), ("org/name", "a")):
            _conversation(client, name, model_id)
            _stream(client, name, model_id)
            _tool_call(client, name, {"logit_bias": [[CALL_MARK, 100]]} if model_id == "c" else {})
            _curl(served.url, name, model_id)
            if served.is_real:
                _every_path(served.url, name, model_id)
        _embeddings(client)
        _errors(client)


def _lists_names(client: openai.OpenAI) -> None:
    listed = {model.id: model.to_dict()["aliases"] for model in client.models.list()}
    assert listed == {"a": ["gpt-4o", "org/name"], "c": ["gpt-4o-mini"], "e": ["text-embedding-3-small"]}
    assert client.models.retrieve("org/name").id == "a"


def _conversation(client: openai.OpenAI, name: str, model_id: str) -> None:
    messages = list(HELLO)
    for _ in range(2):
        answer = client.chat.completions.create(model=name, messages=messages, max_tokens=8)
        assert answer.model == model_id
        said = answer.choices[0].message.content
        assert said is not None
        messages += [{"role": "assistant", "content": said or "?"}, {"role": "user", "content": "go on"}]
    unnamed = client.chat.completions.create(model="", messages=HELLO, max_tokens=4)
    assert unnamed.model == model_id


def _stream(client: openai.OpenAI, name: str, model_id: str) -> None:
    with client.chat.completions.create(model=name, messages=HELLO, max_tokens=8, stream=True) as stream:
        chunks = list(stream)
    assert {chunk.model for chunk in chunks} == {model_id}
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] in ("stop", "length")


def _tool_call(client: openai.OpenAI, name: str, more: dict[str, Any]) -> None:
    answer = client.chat.completions.create(
        model=name,
        messages=HELLO,
        tools=[TOOL],
        tool_choice={"type": "function", "function": {"name": "weather"}},
        max_tokens=200,
        extra_body=more,
    )
    assert answer.choices[0].message.tool_calls
    call = answer.choices[0].message.tool_calls[0]
    assert call.type == "function"
    assert call.function.name == "weather"
    assert json.loads(call.function.arguments)["unit"] in UNITS


def _curl(url: str, name: str, model_id: str) -> None:
    body = json.dumps({"model": name, "messages": HELLO, "max_tokens": 4})
    command = ("curl", "-sS", "--fail", "--max-time", "120", f"{url}/v1/chat/completions")
    said = subprocess.run((*command, "--json", body), capture_output=True, text=True, check=True).stdout
    assert json.loads(said)["model"] == model_id
    streamed = json.dumps(json.loads(body) | {"stream": True})
    said = subprocess.run((*command, "-N", "--json", streamed), capture_output=True, text=True, check=True).stdout
    assert said.rstrip().endswith("data: [DONE]")


def _embeddings(client: openai.OpenAI) -> None:
    for name in ("text-embedding-3-small", "e"):
        answer = client.embeddings.create(model=name, input=["one", "two"])
        assert [len(item.embedding) > 1 for item in answer.data] == [True, True]


def _errors(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as unknown:
        client.chat.completions.create(model="nobody", messages=HELLO)
    assert unknown.value.code == "model_not_found"
    with pytest.raises(openai.APIStatusError) as not_served:  # in the engine's own words
        client.embeddings.create(model="c", input="a model that embeds nothing")
    assert not_served.value.status_code in (400, 404, 501)


# Below /v1: the request, and the status of vLLM and of llama-server for a chat model.
_MESSAGES: dict[str, Any] = {"messages": HELLO, "max_tokens": 4}
_PATHS: tuple[tuple[str, dict[str, Any], dict[str, int]], ...] = (
    ("completions", {"prompt": "a", "max_tokens": 2}, {"a": 200, "c": 200}),
    ("chat/completions", _MESSAGES, {"a": 200, "c": 200}),
    ("responses", {"input": "hello", "max_output_tokens": 8}, {"a": 200, "c": 200}),
    ("messages", _MESSAGES, {"a": 200, "c": 200}),
    ("messages/count_tokens", {"messages": HELLO}, {"a": 200, "c": 200}),
    ("tokenize", {"prompt": "hello", "content": "hello"}, {"a": 200, "c": 200}),
    ("detokenize", {"tokens": [1, 2]}, {"a": 200, "c": 200}),
    ("rerank", {"query": "a", "documents": ["b"]}, {"a": 404, "c": 501}),
    ("score", {"text_1": "a", "text_2": "b"}, {"a": 404, "c": 404}),
    ("images/generations", {"prompt": "a"}, {"a": 404, "c": 404}),
    ("load_lora_adapter", {"lora_name": "x", "lora_path": "/x"}, {"a": 403, "c": 403}),
)


def _every_path(url: str, name: str, model_id: str) -> None:
    with httpx.Client(base_url=f"{url}/v1", timeout=60) as client:
        answers = {path: client.post(f"/{path}", json={"model": name} | body) for path, body, _ in _PATHS}
        assert {path: answer.status_code for path, answer in answers.items()} == {
            path: expected[model_id] for path, _, expected in _PATHS
        }
        assert answers["messages"].json()["type"] == "message"
        assert answers["messages/count_tokens"].json()["input_tokens"] > 0
        assert answers["tokenize"].json()["tokens"]
        form = client.post("/audio/transcriptions", data={"model": name}, files={"file": b"RIFF"})
        assert form.status_code in (400, 404, 501)  # neither can hear; both received the request
        offer = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
        upgrade = client.get("/realtime", params={"model": name}, headers=offer | {"Sec-WebSocket-Key": "eA=="})
        assert upgrade.status_code in (400, 403, 404)
        stored = client.get("/responses/resp_none", params={"model": name})
        assert stored.status_code in (400, 404)
