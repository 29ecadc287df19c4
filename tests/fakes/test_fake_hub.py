"""The fake hub responds like the real one, to huggingface_hub and to plain requests."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from huggingface_hub import HfApi
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError

from tests.fakes.hub import (
    COMMIT,
    STRANGER,
    TOKEN,
    Changed,
    Cut,
    FakeHub,
    FakeRepository,
    LengthWrong,
    OnDisk,
    RangeIgnored,
    RangeShifted,
    Refusal,
    WrongByte,
)
from tests.tiny_models import tiny_gguf

WEIGHTS = bytes(range(256)) * 64


@pytest.fixture(autouse=True)
def tiny(hub: FakeHub) -> None:
    hub.repositories["me/tiny-GGUF"] = FakeRepository({"tiny.gguf": WEIGHTS, "config.json": b"{}"})


def fetch(hub: FakeHub, *, name: str = "tiny.gguf", **headers: str) -> httpx.Response:
    url = f"{hub.url}/me/tiny-GGUF/resolve/main/{name}"
    return httpx.get(
        url, headers={name.replace("_", "-"): value for name, value in headers.items()}, follow_redirects=True
    )


def api(hub: FakeHub, token: str | bool = False) -> HfApi:
    return HfApi(hub.url, token=token)


@pytest.mark.parametrize(
    ("asked", "begin", "end"),
    [("bytes=0-9", 0, 10), ("bytes=100-", 100, len(WEIGHTS)), ("bytes=-7", len(WEIGHTS) - 7, len(WEIGHTS))],
)
def test_ranges(hub: FakeHub, asked: str, begin: int, end: int) -> None:
    answer = fetch(hub, range=asked)
    assert (answer.status_code, answer.content) == (206, WEIGHTS[begin:end])
    assert answer.headers["content-range"] == f"bytes {begin}-{end - 1}/{len(WEIGHTS)}"


def test_a_range_outside(hub: FakeHub) -> None:
    answer = fetch(hub, range=f"bytes={len(WEIGHTS)}-")
    assert (answer.status_code, answer.headers["content-range"]) == (416, f"bytes */{len(WEIGHTS)}")


def test_a_small_file_comes_without_a_redirect(hub: FakeHub) -> None:
    answer = fetch(hub, name="config.json", range="bytes=1-1")
    assert (answer.status_code, answer.content, answer.history) == (206, b"}", [])


def test_content_on_disk(hub: FakeHub, tmp_path: Path) -> None:
    file = tmp_path / "large"
    file.write_bytes(WEIGHTS)
    hub.repositories["me/tiny-GGUF"].files = {"tiny.gguf": OnDisk(file)}
    assert fetch(hub).content == WEIGHTS
    assert fetch(hub, range="bytes=5-6").content == WEIGHTS[5:7]


def test_another_version_is_sent_whole(hub: FakeHub) -> None:
    etag = fetch(hub).headers["etag"]
    assert fetch(hub, range="bytes=1-2", if_range=etag).status_code == 206
    assert fetch(hub, range="bytes=1-2", if_range='"another"').content == WEIGHTS


def test_faults_of_ranges(hub: FakeHub) -> None:
    hub.faults = [RangeIgnored(times=1)]
    assert fetch(hub, range="bytes=1-2").status_code == 200
    hub.faults = [RangeShifted(3)]
    lie = fetch(hub, range="bytes=1-2")
    assert (lie.content, lie.headers["content-range"]) == (WEIGHTS[4:6], f"bytes 1-2/{len(WEIGHTS)}")
    hub.faults = [RangeShifted(3, admitted=True)]
    assert fetch(hub, range="bytes=1-2").headers["content-range"] == f"bytes 4-5/{len(WEIGHTS)}"
    hub.faults = [LengthWrong(1)]
    assert fetch(hub, range="bytes=1-2").headers["content-range"].endswith(f"/{len(WEIGHTS) + 1}")


def test_faults_of_content(hub: FakeHub) -> None:
    hub.faults = [WrongByte(7)]
    assert [at for at, byte in enumerate(fetch(hub).content) if byte != WEIGHTS[at]] == [7]
    hub.faults = [Cut(100, times=1)]
    with pytest.raises(httpx.RemoteProtocolError):
        fetch(hub)
    hub.faults = [Changed("tiny.gguf", WEIGHTS[::-1])]
    assert [fetch(hub, range="bytes=0-1").content for _ in range(2)] == [WEIGHTS[:2], WEIGHTS[:-3:-1]]
    hub.faults = [Refusal(429, headers={"Retry-After": "7"}, on="/resolve/", times=1)]
    assert (fetch(hub).headers["retry-after"], fetch(hub).status_code) == ("7", 200)


def test_tokens(hub: FakeHub) -> None:
    hub.repositories["me/tiny-GGUF"].gated = True
    hub.repositories["me/own"] = FakeRepository({}, private=True)
    assert [fetch(hub, **words).status_code for words in ({}, {"authorization": f"Bearer {STRANGER}"})] == [401, 403]
    assert fetch(hub, authorization=f"Bearer {TOKEN}").status_code == 200
    with pytest.raises(GatedRepoError):
        api(hub, STRANGER).auth_check("me/tiny-GGUF")
    with pytest.raises(RepositoryNotFoundError):
        api(hub, STRANGER).model_info("me/own")
    with pytest.raises(HfHubHTTPError, match="Invalid credentials"):
        api(hub, "hf_expired").model_info("me/tiny-GGUF")
    assert api(hub, TOKEN).model_info("me/own").private


def test_what_a_list_holds(hub: FakeHub) -> None:
    said = {"total": 7_000_000_000, "architecture": "llama", "context_length": 4096}
    hub.repositories["me/seven-GGUF"] = FakeRepository({"a.gguf": b""}, gguf=said, base_models=("you/seven",), likes=9)
    hub.repositories["me/mit"] = FakeRepository({}, tags=("safetensors",), card={"license": "mit"}, downloads=99)
    find = api(hub).list_models
    assert [one.id for one in find(sort="downloads")] == ["me/mit", "me/tiny-GGUF", "me/seven-GGUF"]
    assert [one.id for one in find(sort="likes", limit=1)] == ["me/seven-GGUF"]
    assert [one.id for one in find(filter="license:mit")] == ["me/mit"]
    assert [one.id for one in find(search="seven gguf", num_parameters="min:6B,max:8B")] == ["me/seven-GGUF"]
    (one,) = find(filter=["gguf", "base_model:you/seven"], expand=["gguf", "siblings", "baseModels"])
    assert (one.gguf, [sibling.rfilename for sibling in one.siblings or ()]) == (said, ["a.gguf"])
    assert one.downloads is None


def test_pages(hub: FakeHub) -> None:
    hub.repositories |= {f"me/{number}": FakeRepository({}) for number in range(5)}
    first = httpx.get(f"{hub.url}/api/models", params={"limit": "4"})
    rest = httpx.get(first.links["next"]["url"])
    assert (len(first.json()), len(rest.json()), "next" in rest.links) == (4, 2, False)


def test_a_repository_that_moved(hub: FakeHub) -> None:
    hub.moved["me/old"] = "me/tiny-GGUF"
    info = api(hub).model_info("me/old", files_metadata=True)
    sizes = {sibling.rfilename: sibling.size for sibling in info.siblings or ()}
    assert (info.id, info.sha, sizes) == ("me/tiny-GGUF", COMMIT, {"tiny.gguf": len(WEIGHTS), "config.json": 2})


def test_a_folder_is_served_as_a_program(tmp_path: Path) -> None:
    folder = tmp_path / "me/tiny-GGUF"
    folder.mkdir(parents=True)
    tiny_gguf(folder / "tiny.gguf")
    (folder / "README.md").write_text("---\nlicense: mit\nbase_model: you/tiny\n---\n# tiny\n")
    command = (sys.executable, "-m", "tests.fakes.hub", str(tmp_path))
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]) as program:
        assert program.stdout is not None
        url = program.stdout.readline().split("HF_ENDPOINT=")[1].split()[0]
        info = httpx.get(f"{url}/api/models/me/tiny-GGUF", params={"blobs": "true"}).json()
        program.send_signal(signal.SIGTERM)
    assert program.returncode == 0
    assert info["gguf"]["architecture"] == "llama" and info["cardData"]["license"] == "mit"
    assert {"gguf", "license:mit", "base_model:quantized:you/tiny"} <= set(info["tags"])
