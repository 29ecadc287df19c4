"""Header stubs: reading models on the hub by their headers; wrong responses leave no stub."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from mmd.errors import BadModelFile, HubUnavailable, MmdError, NotRunnable, RepositoryGated, StorageFailed
from mmd.paths import cache_dir
from mmd.registry.detect import examine
from mmd.registry.hub import api, stub_cache
from mmd.registry.hub.files import select
from mmd.registry.hub.headers import examine_remote, header_stub
from tests.fakes.hub import (
    TOKEN,
    Changed,
    Cut,
    FakeHub,
    FakeRepository,
    Fault,
    LengthWrong,
    OnDisk,
    RangeIgnored,
    RangeShifted,
    Refusal,
)
from tests.fakes.hub.content import Content
from tests.tiny_models import sparse_gguf, tiny_folder, tiny_gguf

pytestmark = pytest.mark.usefixtures("hub")

MB = 10**6
TOKENS = [f"token-{number:07}-that-is-spelt-out" for number in range(300_000)]  # 11 MB of header


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GGUF of 30 GB with a large vocabulary; on the disk it takes 11 MB."""
    path = tmp_path_factory.mktemp("large") / "large.gguf"
    return sparse_gguf(path, 30_000 * MB, metadata={"tokenizer.ggml.tokens": TOKENS, "general.name": "Large"})


def on_disk(path: Path) -> OnDisk:
    return OnDisk(path, sha256="a" * 64)


def offer(hub: FakeHub, **files: Content) -> None:
    hub.repositories["me/it"] = FakeRepository({name.replace("_gguf", ".gguf"): file for name, file in files.items()})


def looked_up(file: str | None = None) -> tuple[api.Repository, Path]:
    repository = api.read_repository("me/it")
    return repository, header_stub(repository, select(repository.id, repository.files, file))


def kept() -> list[str]:
    root = cache_dir() / "ghost"
    return [path.name for path in root.iterdir()] if root.exists() else []


def test_of_30_gb_no_more_than_the_header_is_read(hub: FakeHub, large: Path) -> None:
    offer(hub, large_gguf=on_disk(large))
    _, path = looked_up()
    assert examine(path).facts == examine(large).facts
    assert path.stat().st_size == large.stat().st_size
    assert path.stat().st_blocks * 512 < 25 * MB
    assert sum(hub.sent) < 25 * MB


def test_what_was_fetched_once_is_not_fetched_again(hub: FakeHub, large: Path) -> None:
    offer(hub, large_gguf=on_disk(large))
    _, first = looked_up()
    hub.repositories["me/it"].commit = "d" * 40  # for example a new model card
    hub.sent.clear()
    _, again = looked_up()
    assert (again, hub.sent) == (first, [])


def test_a_folder_of_safetensors(hub: FakeHub, tmp_path: Path) -> None:
    folder = tiny_folder(tmp_path / "it")
    offer(hub, **{path.name: path.read_bytes() for path in folder.iterdir()})
    _, path = looked_up()
    found = examine(path)
    assert found.facts == examine(folder).facts
    assert path.name == "it"
    # The tokenizer does not affect the estimate.
    assert not (path / "tokenizer.json").read_bytes().strip(b"\0")
    assert not hub.asked_for("GET", "tokenizer.json")


def test_shards_each_have_a_header_of_their_own(hub: FakeHub, tmp_path: Path) -> None:
    names = [f"it-{number:05}-of-00003.gguf" for number in (1, 2, 3)]
    parts = {}
    for number, name in enumerate(names):
        said = {"split.count": 3, "split.no": number}
        parts[name] = OnDisk(sparse_gguf(tmp_path / name, 10_000 * MB, metadata=said), sha256=str(number) * 64)
    hub.repositories["me/it"] = FakeRepository(parts)
    _, path = looked_up()
    assert examine(path).facts.weights_bytes == examine(tmp_path / names[0]).facts.weights_bytes > 29_000 * MB
    assert sum(hub.sent) <= 3 << 20


def test_what_is_downloaded_is_examined_in_place(hub: FakeHub, tmp_path: Path, own_home: Path) -> None:
    offer(hub, it_gguf=tiny_gguf(tmp_path / "it.gguf").read_bytes())
    snapshot = own_home / ".cache/huggingface/hub/models--me--it" / "snapshots" / hub.repositories["me/it"].commit
    snapshot.mkdir(parents=True)
    (snapshot / "it.gguf").write_bytes(b"here")
    assert looked_up()[1] == snapshot / "it.gguf"
    assert not kept()


def test_the_token_goes_to_the_hub_and_not_to_the_cdn(
    hub: FakeHub, large: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer(hub, large_gguf=on_disk(large))
    hub.repositories["me/it"].gated = True
    repository = api.read_repository("me/it")
    selection = select(repository.id, repository.files, None)
    with pytest.raises(RepositoryGated, match="gated"):
        header_stub(repository, selection)
    assert not kept()
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    header_stub(repository, selection)
    assert hub.asked_for("GET", "/resolve/")[-1]["authorization"] == f"Bearer {TOKEN}"
    assert not any("authorization" in headers for headers in hub.asked_for("GET", "/cdn/"))


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        (RangeIgnored(), "the whole file"),
        (RangeShifted(32, admitted=True), "Content-Range: bytes 32-"),
        (LengthWrong(100), r"Content-Range: bytes .*/30\d+ instead of bytes .*/30"),
        (Cut(after_bytes=1000), "cannot be reached"),
        (Refusal(500), "status 500"),
        (Refusal(429), "too many requests"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_answer_that_cannot_be_right(hub: FakeHub, large: Path, fault: Fault, says: str) -> None:
    offer(hub, large_gguf=on_disk(large))
    hub.faults.append(fault)
    with pytest.raises(HubUnavailable, match=says):
        looked_up()
    assert not kept()


def test_the_whole_file_for_a_part_is_not_read(hub: FakeHub, tmp_path: Path) -> None:
    offer(hub, it_gguf=OnDisk(sparse_gguf(tmp_path / "it.gguf", 300 * MB), sha256="b" * 64))
    hub.faults.append(RangeIgnored())
    with pytest.raises(HubUnavailable, match="the whole file"):
        looked_up()
    assert sum(hub.sent) < 100 * MB  # what the socket buffers hold


def test_a_file_that_changes_between_two_ranges(hub: FakeHub, large: Path, tmp_path: Path) -> None:
    offer(hub, large_gguf=on_disk(large))
    other = OnDisk(sparse_gguf(tmp_path / "other.gguf", 30_000 * MB), sha256="c" * 64)
    hub.faults.append(Changed("large.gguf", other))
    with pytest.raises(HubUnavailable, match=r"the file has changed between two reads|not the file that"):
        looked_up()
    assert not kept()


def test_a_file_that_is_not_the_one_listed(hub: FakeHub, large: Path) -> None:
    offer(hub, large_gguf=on_disk(large))
    repository = api.read_repository("me/it")
    listed = select(repository.id, repository.files, None)
    other = replace(listed, files=tuple(replace(file, sha256="f" * 64) for file in listed.files))
    with pytest.raises(HubUnavailable, match="not the file that the repository lists"):
        header_stub(repository, other)
    assert not kept()


def test_bytes_of_another_place_are_a_damaged_header(hub: FakeHub, large: Path) -> None:
    offer(hub, large_gguf=on_disk(large))
    hub.faults.append(RangeShifted(32))
    with pytest.raises(BadModelFile, match=r"^me/it: large.gguf is not a valid GGUF file") as raised:
        looked_up()
    assert raised.value.hint.startswith("xdg-open http")
    assert not kept()


def test_a_header_that_claims_to_be_endless(hub: FakeHub, tmp_path: Path) -> None:
    path = tmp_path / "it.gguf"
    lengths = ((1).to_bytes(8, "little"), (1).to_bytes(8, "little"), (200 * MB).to_bytes(8, "little"))
    path.write_bytes(b"GGUF" + (3).to_bytes(4, "little") + b"".join(lengths))
    os.truncate(path, 30_000 * MB)
    offer(hub, it_gguf=on_disk(path))
    with pytest.raises(MmdError, match="claims a length"):
        looked_up()
    assert sum(hub.sent) <= 1 << 20
    assert not kept()


def test_a_safetensors_header_longer_than_any(hub: FakeHub, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes((90 * MB).to_bytes(8, "little"))
    os.truncate(path, 300 * MB)
    files: dict[str, Content] = {"model.safetensors": on_disk(path)}
    files["config.json"] = json.dumps({"architectures": ["Llama"]}).encode()
    hub.repositories["me/it"] = FakeRepository(files, tags=("safetensors",))
    with pytest.raises(HubUnavailable, match="more than 64 MiB"):
        looked_up()
    assert not kept()


def test_a_shorter_file_than_its_header_says(hub: FakeHub, tmp_path: Path) -> None:
    path = sparse_gguf(tmp_path / "it.gguf", 1000 * MB)
    os.truncate(path, 900 * MB)
    offer(hub, it_gguf=on_disk(path))
    with pytest.raises(BadModelFile, match="the download is incomplete"):
        looked_up()
    assert not kept()


def test_what_nothing_here_can_serve_is_said_of_the_repository(hub: FakeHub, tmp_path: Path) -> None:
    said = {"general.architecture": "flux"}
    offer(hub, it_gguf=OnDisk(sparse_gguf(tmp_path / "it.gguf", 300 * MB, metadata=said), sha256="b" * 64))
    repository = api.read_repository("me/it")
    with pytest.raises(NotRunnable) as raised:
        examine_remote(repository, select(repository.id, repository.files, None))
    assert "me/it: it.gguf" in raised.value.message
    assert str(cache_dir()) not in raised.value.message + raised.value.hint


def test_one_that_a_crash_has_damaged_is_fetched_again(hub: FakeHub, tmp_path: Path) -> None:
    offer(hub, it_gguf=OnDisk(sparse_gguf(tmp_path / "it.gguf", 300 * MB), sha256="b" * 64))
    repository, path = looked_up()
    path.write_bytes(b"GGUF")
    selection = select(repository.id, repository.files, None)
    with pytest.raises(BadModelFile, match=r"^me/it: it.gguf"):
        examine_remote(repository, selection)
    assert examine_remote(repository, selection).facts == examine(tmp_path / "it.gguf").facts


def test_a_configuration_of_gigabytes_is_not_fetched(hub: FakeHub, tmp_path: Path) -> None:
    huge = tmp_path / "config.json"
    huge.touch()
    os.truncate(huge, 3000 * MB)
    weights = (tiny_folder(tmp_path / "it") / "model.safetensors").read_bytes()
    hub.repositories["me/it"] = FakeRepository({"model.safetensors": weights, "config.json": on_disk(huge)})
    repository = api.read_repository("me/it")
    with pytest.raises(BadModelFile, match="larger than 64 MiB"):
        examine_remote(repository, select(repository.id, repository.files, None))
    assert sum(hub.sent) < MB


def test_number_of_kept_stubs_is_limited(hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stub_cache, "_MAX_STUBS", 2)
    for number in range(3):
        path = sparse_gguf(tmp_path / f"{number}.gguf", 100 * MB)
        offer(hub, it_gguf=OnDisk(path, sha256=str(number) * 64))
        _, newest = looked_up()
        os.utime(newest.parents[1], (number, number))
    offer(hub, it_gguf=OnDisk(path, sha256="9" * 64))
    _, newest = looked_up()
    assert len(kept()) == 2
    assert newest.exists()


def test_a_disk_that_takes_nothing(hub: FakeHub, large: Path) -> None:
    offer(hub, large_gguf=on_disk(large))
    cache_dir().mkdir(parents=True)
    (cache_dir() / "ghost").write_text("a file where the folder should be")
    with pytest.raises(StorageFailed, match="cannot be kept"):
        looked_up()
