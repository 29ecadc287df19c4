"""From a search to a response: the hub is a local one, everything else is what a user runs."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import httpx
import pytest

from mmd.registry import manifest
from mmd.registry.hub.partial import done_bytes
from mmd.registry.store import Registry
from tests.fakes.hub import FakeHub, FakeRepository
from tests.systemd.world import REPOSITORY, World, run_mmd, wait_for
from tests.tiny_models import tiny_gguf

_ANSWER_SECONDS = 60


@pytest.fixture(autouse=True)
def repositories(hub: FakeHub, tmp_path: Path) -> None:
    weights = tiny_gguf(tmp_path / "weights.gguf", name="tiny").read_bytes()
    files = {"tiny-Q8_0.gguf": weights + bytes(1 << 20)}  # the header of a GGUF says where the tensors end
    hub.repositories = {
        "me/tiny-GGUF": FakeRepository(files, downloads=500),
        "you/other-GGUF": FakeRepository(files, downloads=9000),
    }


def pull_killed_in_the_middle(hub: FakeHub, reference: str, content: bytes) -> None:
    """Kill `mmd pull` with SIGKILL after half of the file."""
    digest = sha256(content).hexdigest()
    owner, name = reference.split("/")
    blobs = Path.home() / f".cache/huggingface/hub/models--{owner}--{name}/blobs"
    hub.hold.clear()
    command = (sys.executable, "-m", "mmd", "pull", reference)
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as killed:
        try:
            partial = blobs / f"{digest}.mmd.incomplete"
            wait_for(lambda: done_bytes(partial, len(content)) == len(content) // 2, what="half of it has come")
        finally:
            killed.kill()
    hub.hold.set()


def search_pull_activate_chat(hub: FakeHub, gateway: str) -> str:
    """Do what a new user does, with a power cut in it; return the response of the model."""
    searched = run_mmd("search", "tiny", "--json")
    assert searched.returncode == 0, searched.stderr
    found = json.loads(searched.stdout)[0]
    (content,) = hub.repositories[found["id"]].files.values()
    assert isinstance(content, bytes)
    pull_killed_in_the_middle(hub, found["id"], content)
    assert not Registry().all()
    with httpx.Client(base_url=gateway, timeout=_ANSWER_SECONDS) as http:
        assert [hit["id"] for hit in http.get("/hf/search", params={"q": "tiny"}).json()] == [found["id"]]

        pulled = run_mmd("pull", found["id"])
        assert (pulled.returncode, pulled.stdout) == (0, "tiny\n"), pulled.stderr
        half, size = len(content) // 2, len(content)
        assert [asked["range"] for asked in hub.asked_for("GET", "/cdn/")] == [
            f"bytes=0-{size - 1}",
            f"bytes={half}-{size - 1}",
        ]
        model = Registry().get("tiny")
        assert manifest.read("tiny")[model.path].sha256 == sha256(content).hexdigest()
        assert run_mmd("verify", "tiny").returncode == 0

        activated = run_mmd("activate", "tiny")
        assert activated.returncode == 0, activated.stderr
        assert json.loads(run_mmd("status", "--json").stdout)["active"] == "tiny"
        asked = {"model": "tiny", "max_tokens": 8, "messages": [{"role": "user", "content": "hello"}]}
        answer = http.post("/v1/chat/completions", json=asked)
        assert answer.status_code == 200, answer.text
        text: str = answer.json()["choices"][0]["message"]["content"]
        return text


@pytest.fixture
def gateway(hub: FakeHub, world: World, installed: str) -> Iterator[str]:
    world.manager.systemctl("set-environment", f"HF_ENDPOINT={hub.url}", "HF_HUB_DISABLE_XET=1")
    yield installed
    world.manager.systemctl("unset-environment", "HF_ENDPOINT", "HF_HUB_DISABLE_XET")


def test_from_a_search_to_an_answer(hub: FakeHub, gateway: str) -> None:
    assert "tiny" in search_pull_activate_chat(hub, gateway)
