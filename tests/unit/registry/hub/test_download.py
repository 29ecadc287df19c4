"""Downloads from a faulty hub: files are complete and correct or an error is raised, and no fetched byte is lost."""

from __future__ import annotations

import errno
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from mmd.errors import (
    BadModelFile,
    FileNeeded,
    HubUnavailable,
    NoSpace,
    NoSuchRepository,
    NotRunnable,
    RepositoryGated,
    StorageFailed,
    WrongUsage,
)
from mmd.registry import manifest
from mmd.registry.hub import download, fetch, partial, register
from mmd.registry.hub.progress import Progress, Rate
from mmd.registry.record import Model
from mmd.registry.store import Registry
from tests.fakes.hub import (
    COMMIT,
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
    WrongByte,
)
from tests.tiny_models import tiny_folder, tiny_gguf

SEGMENT_BYTES = 1 << 18  # so small files have several
PATIENCE_SECONDS = 20.0


@pytest.fixture(autouse=True)
def small_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants
    from tqdm import tqdm

    monkeypatch.setattr(tqdm, "monitor_interval", 0)  # otherwise tqdm leaves a thread behind
    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 2 * PATIENCE_SECONDS)  # some responses are held
    monkeypatch.setattr(partial, "SEGMENT_BYTES", SEGMENT_BYTES)
    monkeypatch.setattr(fetch, "_FIRST_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(download, "_REPORT_SECONDS", 0.02)


@pytest.fixture
def content(tmp_path: Path) -> bytes:
    return tiny_gguf(tmp_path / "tiny.gguf").read_bytes() + os.urandom(3 * SEGMENT_BYTES)


@pytest.fixture
def tiny(hub: FakeHub, content: bytes) -> FakeRepository:
    repository = hub.repositories["me/tiny"] = FakeRepository({"tiny.gguf": content, "README.md": b"# tiny"})
    return repository


def pull(file: str | None = None, *, id: str | None = None, told: list[Progress] | None = None) -> Model:
    snapshot = register.resolve("me/tiny")
    on_progress = told.append if told is not None else lambda progress: None
    return register.download_and_register(snapshot, register.choose(snapshot, file), on_progress, id=id)


def blobs(home: Path) -> Path:
    return home / ".cache/huggingface/hub/models--me--tiny/blobs"


def partial_of(home: Path, content: bytes) -> Path:
    return blobs(home) / f"{sha256(content).hexdigest()}.mmd.incomplete"


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def begun(home: Path, content: bytes) -> int:
    return partial.done_bytes(partial_of(home, content), len(content))


def break_off(hub: FakeHub, monkeypatch: pytest.MonkeyPatch, *, cuts: int, after_bytes: int) -> None:
    """Let a pull fail after this many responses in a row, each cut after this many bytes."""
    hub.faults = [Cut(after_bytes, times=cuts), Refusal(404, spare=cuts)]
    with monkeypatch.context() as patched, pytest.raises(HubUnavailable):
        patched.setattr(download, "_MAX_REQUESTS", 1)
        pull()
    hub.faults = []


def asked_bytes(hub: FakeHub, since: int = 0) -> int:
    """Return the bytes that were requested."""
    ranges = [headers["range"] for method, path, headers in hub.asked[since:] if "/cdn/" in path]
    bounds = (words.removeprefix("bytes=").split("-") for words in ranges)
    return sum(int(last) + 1 - int(first) for first, last in bounds)


def test_all_of_it_is_there_afterwards(hub: FakeHub, tiny: FakeRepository, content: bytes, own_home: Path) -> None:
    told: list[Progress] = []
    model = pull(told=told)
    assert Path(model.path).read_bytes() == content
    assert manifest.read(model.id)[model.path].sha256 == sha256(content).hexdigest()
    assert (own_home / ".cache/huggingface/hub/models--me--tiny/refs/main").read_text() == COMMIT
    assert (told[-1].done_bytes, told[-1].files_done, told[-1].files) == (len(content), 1, ())
    assert asked_bytes(hub) == len(content)
    assert {path.name for path in blobs(own_home).iterdir()} == {sha256(content).hexdigest()}
    assert not hub.asked_for("GET", "README")


def test_other_tools_find_it(tiny: FakeRepository, hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants, hf_hub_download, scan_cache_dir

    model = pull()
    assert hf_hub_download("me/tiny", "tiny.gguf", local_files_only=True) == model.path
    scanned = scan_cache_dir(constants.HF_HUB_CACHE)  # its module reads the variable once, at import
    assert (len(scanned.repos), scanned.warnings) == (1, [])


def test_what_was_begun_is_taken_up(
    hub: FakeHub, tiny: FakeRepository, content: bytes, own_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_off(hub, monkeypatch, cuts=3, after_bytes=1000)
    assert begun(own_home, content) == 3000
    already = len(hub.asked)
    assert Path(pull().path).read_bytes() == content
    assert asked_bytes(hub, already) == len(content) - 3000


def test_killed_in_the_middle(hub: FakeHub, content: bytes, own_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two segments are being fetched; no fetched byte of either is requested again."""
    monkeypatch.setattr(partial, "SEGMENT_BYTES", 32 << 20)  # the program's
    content += bytes(33 << 20)
    hub.repositories["me/tiny"] = FakeRepository({"tiny.gguf": content})
    hub.hold.clear()
    environment = os.environ | {"HF_ENDPOINT": hub.url, "HF_HUB_DISABLE_XET": "1"}
    command = (
        sys.executable,
        "-m",
        "mmd.control.models.hub_process",
        "download",
        "me/tiny",
        "tiny.gguf",
        COMMIT,
        "main",
    )
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL) as killed:
        try:
            wait_until(lambda: begun(own_home, content) == len(content) // 2)
        finally:
            killed.kill()
    hub.hold.set()
    already = len(hub.asked)
    assert subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, check=False).returncode == 0
    assert asked_bytes(hub, already) == len(content) - len(content) // 2
    (model,) = Registry().all()
    assert Path(model.path).read_bytes() == content


@pytest.mark.parametrize(
    "moment",
    [
        "mmd.registry.hub.partial.Partial.cut_ledger",
        "pathlib.Path.rename",
        "huggingface_hub.hf_hub_download",
        "mmd.registry.hub.register.write_ref",
        "mmd.registry.store.Registry.add",
    ],
)
def test_killed_when_all_has_come(hub: FakeHub, tiny: FakeRepository, content: bytes, moment: str) -> None:
    """Killed after each of the last steps: fetched bytes are not fetched again, and the rest is done."""
    place, _, name = moment.rpartition(".")
    killed = (
        "import os, pkgutil, signal\n"
        "from mmd.control.models.hub_process import main\n"
        f"place = pkgutil.resolve_name({place!r})\n"
        f"step = place.{name}\n"
        "def last(*asked, **options):\n"
        "    step(*asked, **options)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        f"place.{name} = last\n"
        f"main(['download', 'me/tiny', 'tiny.gguf', {COMMIT!r}, 'main'])\n"
    )
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run((sys.executable, "-c", killed), env=environment, stdout=subprocess.DEVNULL, check=False)
    assert done.returncode == -signal.SIGKILL
    already = len(hub.asked)
    model = pull()
    assert asked_bytes(hub, already) == 0
    assert Path(model.path).read_bytes() == content
    assert manifest.read(model.id)[model.path].sha256 == sha256(content).hexdigest()
    assert Registry().all() == (model,)


def test_a_cache_in_the_current_folder(
    hub: FakeHub, tiny: FakeRepository, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """HF_HOME=here: hashes were stored under a relative path that is never looked up."""
    from huggingface_hub import constants

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", "here/hub")
    model = pull(id="mine")
    assert manifest.read(model.id)[model.path].sha256 is not None
    assert pull(id="mine") == model


def test_whom_it_was_for_has_gone(hub: FakeHub, tiny: FakeRepository) -> None:
    """The gateway was killed before its child set its parent-death signal: the child ends without a traceback."""
    command = (
        sys.executable,
        "-m",
        "mmd.control.models.hub_process",
        "download",
        "me/tiny",
        "tiny.gguf",
        COMMIT,
        "main",
    )
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(command, env=environment, stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, "")


def test_partial_file_of_another_version_is_fetched_again(
    hub: FakeHub, tiny: FakeRepository, content: bytes, own_home: Path
) -> None:
    blobs(own_home).mkdir(parents=True)
    partial_of(own_home, content).write_bytes(content[:1000] + b"no ledger")
    assert Path(pull().path).read_bytes() == content


def test_a_damaged_file_is_kept_aside_and_not_registered(
    hub: FakeHub, tiny: FakeRepository, content: bytes, own_home: Path
) -> None:
    hub.faults = [WrongByte(SEGMENT_BYTES + 5)]
    with pytest.raises(
        BadModelFile, match=r"tiny.gguf was damaged in transit and is kept as .*\.damaged: its sha256 is"
    ) as caught:
        pull()
    aside = blobs(own_home) / f"{sha256(content).hexdigest()}.damaged"
    assert str(aside) in caught.value.message and "mmd pull me/tiny:tiny.gguf" in caught.value.hint
    assert len(aside.read_bytes()) == len(content)
    assert not Registry().all() and begun(own_home, content) == 0
    hub.faults = []
    assert Path(pull().path).read_bytes() == content


def test_a_file_that_changes_between_two_ranges(
    hub: FakeHub, tiny: FakeRepository, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "_MAX_REQUESTS", 1)  # at once, all could be answered before the change
    hub.faults = [Changed("tiny.gguf", os.urandom(len(content)), after_answers=2)]
    with pytest.raises(BadModelFile, match="damaged in transit"):
        pull()
    assert not Registry().all()


@pytest.mark.parametrize(
    ("lie", "says"),
    [
        (RangeIgnored(), "status 200"),
        (RangeShifted(7, admitted=True), "Content-Range: bytes"),
        (LengthWrong(9), "Content-Range: bytes"),
    ],
)
def test_ranges_that_lie(
    hub: FakeHub, tiny: FakeRepository, own_home: Path, content: bytes, lie: Fault, says: str
) -> None:
    """A mirror or proxy responds with something else: no byte of it is written."""
    hub.faults = [lie]
    with pytest.raises(HubUnavailable, match=says) as caught:
        pull()
    assert "unset HF_ENDPOINT" in caught.value.hint
    assert begun(own_home, content) == 0


def test_a_lie_that_nothing_shows_is_found_by_the_hash(hub: FakeHub, tiny: FakeRepository) -> None:
    hub.faults = [RangeShifted(7, times=1)]
    with pytest.raises(BadModelFile, match="damaged in transit"):
        pull()


def test_a_lie_told_once(hub: FakeHub, tiny: FakeRepository, content: bytes) -> None:
    hub.faults = [RangeIgnored(times=2), Refusal(500, times=2), Cut(5, times=3)]
    assert Path(pull().path).read_bytes() == content


def test_an_address_that_expires(
    hub: FakeHub, tiny: FakeRepository, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An address is signed for an hour; a large file takes longer, so the hub is asked for a new one."""
    monkeypatch.setattr(fetch, "_NEW_ADDRESS_SECONDS", -1.0)
    hub.faults = [Refusal(403, spare=1, times=1)]
    assert Path(pull().path).read_bytes() == content
    assert len(hub.asked_for("HEAD", "/resolve/")) == 3  # twice for the content, once for the link


def test_too_many_requests_are_waited_for(hub: FakeHub, tiny: FakeRepository, content: bytes) -> None:
    hub.faults = [Refusal(429, headers={"Retry-After": "1"}, times=1)]
    told: list[Progress] = []
    assert Path(pull(told=told).path).read_bytes() == content
    assert any("rate limited by the hub; retrying in 1 s" in one.note for one in told)


def test_too_many_requests_for_too_long(hub: FakeHub, tiny: FakeRepository) -> None:
    hub.faults = [Refusal(429, headers={"Retry-After": "0"})]
    with pytest.raises(HubUnavailable, match="too many requests from this address"):
        pull()
    hub.faults = [Refusal(429, headers={"Retry-After": "86400"})]
    with pytest.raises(HubUnavailable, match="86400 s, which is too long"):
        pull()


def test_what_a_429_says() -> None:
    assert fetch.retry_after_seconds({"Retry-After": "7"}) == 7
    assert fetch.retry_after_seconds({"RateLimit": '"resolvers";r=0;t=55'}) == 55
    assert fetch.retry_after_seconds({"Retry-After": "7", "RateLimit": '"api";r=0;t=55'}) == 7
    assert fetch.retry_after_seconds({"RateLimit": '"api";r=499;t=299'}) < 299
    assert fetch.retry_after_seconds({"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}) > 0


def test_a_gated_repository(hub: FakeHub, tiny: FakeRepository, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny.gated = True
    with pytest.raises(RepositoryGated, match="gated") as caught:
        pull()
    assert "hf auth login" in caught.value.hint and f"{hub.url}/me/tiny" in caught.value.hint
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert pull().id == "tiny"
    assert all("authorization" not in headers for headers in hub.asked_for("GET", "/cdn/"))


def test_the_token_of_hf_auth_login(hub: FakeHub, tiny: FakeRepository, own_home: Path) -> None:
    tiny.gated = True
    token = own_home / ".cache/huggingface/token"
    token.parent.mkdir(parents=True)
    token.write_text(TOKEN)
    assert pull().id == "tiny"


def test_a_token_that_expired(hub: FakeHub, tiny: FakeRepository, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_expired")
    with pytest.raises(RepositoryGated, match="token") as caught:
        pull()
    assert "hf auth login" in caught.value.hint


def test_what_is_not_there(hub: FakeHub, content: bytes) -> None:
    with pytest.raises(NoSuchRepository):
        pull()
    hub.repositories["me/tiny"] = FakeRepository({"README.md": b"", "model.onnx": content})
    with pytest.raises(NotRunnable):
        pull()
    hub.repositories["me/tiny"] = FakeRepository({"a.gguf": content, "b.gguf": content})
    with pytest.raises(FileNeeded):
        pull()
    with pytest.raises(FileNeeded, match=r"has no c\.gguf"):
        pull("c.gguf")


def test_no_model_after_all(hub: FakeHub) -> None:
    hub.repositories["me/tiny"] = FakeRepository({"tiny.gguf": b"nonsense" * 1000})
    with pytest.raises(BadModelFile):
        pull()
    assert not Registry().all()


def test_another_file_at_the_last_question(
    hub: FakeHub, tiny: FakeRepository, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For the link huggingface_hub asks the hub again, and fetched that file without verification."""
    import huggingface_hub

    link = huggingface_hub.hf_hub_download

    def changed(*asked: Any, **options: Any) -> str:
        tiny.files = {"tiny.gguf": content + b"more"}
        return str(link(*asked, **options))

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", changed)
    with pytest.raises(HubUnavailable, match=r"lists tiny\.gguf with one hash and serves it with another"):
        pull()
    assert not Registry().all()


def test_a_branch_that_moves_on(hub: FakeHub, tiny: FakeRepository, content: bytes, own_home: Path) -> None:
    """With the same files it is the same model; with others it is another one, which does not take the id."""
    model = pull(id="mine")
    tiny.commit = "ab" * 20
    tiny.files = {**tiny.files, "README.md": b"# a better card"}
    already = len(hub.asked)
    assert (pull(), pull(id="mine")) == (model, model)
    assert asked_bytes(hub, already) == 0
    assert (own_home / ".cache/huggingface/hub/models--me--tiny/refs/main").read_text() == tiny.commit
    tiny.commit = "cd" * 20
    tiny.files = {"tiny.gguf": content + b"more"}
    already = len(hub.asked)
    with pytest.raises(WrongUsage, match="the id 'mine' is taken by"):
        pull(id="mine")
    assert asked_bytes(hub, already) == 0
    assert pull().id != "mine"
    assert Path(Registry().get("mine").path).read_bytes() == content


def test_a_configuration_that_was_mended(hub: FakeHub, tmp_path: Path) -> None:
    """The weights are the same, but the model differs."""
    files = {path.name: path.read_bytes() for path in tiny_folder(tmp_path / "tiny").iterdir()}
    repository = hub.repositories["me/tiny"] = FakeRepository(files, tags=("safetensors",))
    first = pull()
    repository.commit = "ab" * 20
    assert pull() == first
    repository.commit = "cd" * 20
    repository.files = {**files, "tokenizer_config.json": b'{"chat_template": "{{ messages }}"}'}
    second = pull()
    assert second.id != first.id and second.source.endswith(repository.commit)


def test_the_id_of_another_file_of_the_repository(hub: FakeHub, content: bytes) -> None:
    hub.repositories["me/tiny"] = FakeRepository({"a-Q4_0.gguf": content, "b-Q8_0.gguf": content + b"x"})
    assert pull("a-Q4_0.gguf", id="mine").id == "mine"
    already = len(hub.asked)
    with pytest.raises(WrongUsage, match="the id 'mine' is taken by"):
        pull("b-Q8_0.gguf", id="mine")
    assert asked_bytes(hub, already) == 0


@pytest.mark.parametrize("revision", ["..", "main/..", "../../evil", "/etc/evil", "a\0b", "x" * 5000])
def test_revisions_that_lead_outside(hub: FakeHub, tiny: FakeRepository, revision: str) -> None:
    with pytest.raises(WrongUsage, match="not a branch, tag or commit"):
        register.resolve("me/tiny", revision)
    assert not hub.asked


def test_notes_of_those_who_wait_side_by_side() -> None:
    """A thread that stopped waiting erased the notes of the others."""
    throttle = fetch.Throttle(PATIENCE_SECONDS)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(throttle.wait, PATIENCE_SECONDS, "too many requests:")
        wait_until(lambda: throttle.note != "")
        throttle.wait(0, "broke off")
        assert throttle.note == "too many requests: 20 s"
        throttle.stop()
        assert isinstance(waiting.exception(), fetch.Cancelled)


@pytest.mark.parametrize("name", ["../../evil.gguf", "/tmp/evil.gguf", "a/../../../evil.gguf"])
def test_names_that_lead_outside(hub: FakeHub, content: bytes, own_home: Path, name: str) -> None:
    hub.repositories["me/tiny"] = FakeRepository({name: content})
    for file in (None, name):
        with pytest.raises((NotRunnable, FileNeeded)):
            pull(file)
    assert not list(own_home.rglob("*evil*"))


def test_a_hash_that_leads_outside(hub: FakeHub, tiny: FakeRepository, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "large").write_bytes(content)
    tiny.files = {"tiny.gguf": OnDisk(tmp_path / "large", sha256="../../../../evil")}
    with pytest.raises(HubUnavailable, match="not valid"):
        pull()


def test_a_disk_that_is_too_small_is_seen_first(
    hub: FakeHub, tiny: FakeRepository, content: bytes, monkeypatch: pytest.MonkeyPatch, own_home: Path
) -> None:
    import shutil

    break_off(hub, monkeypatch, cuts=1, after_bytes=1000)
    already = len(hub.asked)
    usage = shutil.disk_usage(own_home)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=len(content) - 1001))
    with pytest.raises(NoSpace, match="more, and"):
        pull()
    assert asked_bytes(hub, already) == 0
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=len(content) - 1000))
    pull()


def test_a_disk_that_fills_in_the_middle(
    hub: FakeHub, tiny: FakeRepository, content: bytes, monkeypatch: pytest.MonkeyPatch, own_home: Path
) -> None:
    write = os.pwrite

    def full(descriptor: int, data: bytes, offset: int) -> int:
        if SEGMENT_BYTES + 1000 <= offset < len(content):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(descriptor, data, offset)

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(NoSpace, match="No space left on device") as caught:
        pull()
    assert "df -h" in caught.value.hint and not Registry().all()
    monkeypatch.setattr(os, "pwrite", write)
    begun_bytes = begun(own_home, content)
    assert 0 < begun_bytes < len(content)
    assert Path(pull().path).read_bytes() == content


@pytest.fixture
def small_disk(own_home: Path) -> Iterator[Path]:
    """Mount a separate file system below the cache of downloads."""
    folder = own_home / ".cache/huggingface"
    folder.mkdir(parents=True)
    if subprocess.run(("mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", folder), check=False).returncode:
        pytest.skip("only root may mount")
    yield folder
    subprocess.run(("umount", folder), check=True)


def test_a_disk_that_others_fill_meanwhile(
    small_disk: Path, hub: FakeHub, tiny: FakeRepository, content: bytes, own_home: Path
) -> None:
    hub.hold.clear()
    filler = small_disk / "filler"
    with ThreadPoolExecutor(1) as pool:
        pulling = pool.submit(pull)
        assert hub.held.wait(PATIENCE_SECONDS)
        wait_until(lambda: begun(own_home, content) > 0)
        with pytest.raises(OSError, match="No space left"), filler.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        hub.hold.set()
        with pytest.raises(NoSpace, match="No space left on device; what was fetched is kept"):
            pulling.result()
    filler.unlink()
    begun_bytes, already = begun(own_home, content), len(hub.asked)
    assert Path(pull().path).read_bytes() == content
    assert asked_bytes(hub, already) == len(content) - begun_bytes


def test_a_cache_that_can_only_be_read(small_disk: Path, hub: FakeHub, tiny: FakeRepository) -> None:
    """Present files are registered; a write fails with an error, not with a traceback."""
    model = pull()
    Registry().remove(model.id)
    subprocess.run(("mount", "-o", "remount,ro", small_disk), check=True)
    assert pull().path == model.path
    tiny.commit = "ab" * 20
    with pytest.raises(StorageFailed, match="Read-only file system"):
        pull()


def test_files_that_may_not_be_so_large(hub: FakeHub, content: bytes, own_home: Path) -> None:
    """EFBIG: a limit of the process, or FAT."""
    hub.repositories["me/tiny"] = FakeRepository({"tiny.gguf": content})
    command = (
        sys.executable,
        "-m",
        "mmd.control.models.hub_process",
        "download",
        "me/tiny",
        "tiny.gguf",
        COMMIT,
        "main",
    )
    done = subprocess.run(
        command,
        env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (SEGMENT_BYTES, SEGMENT_BYTES)),
        capture_output=True,
        text=True,
        check=False,
    )
    said = json.loads(done.stdout.splitlines()[-1])["error"]
    assert (done.returncode, said["code"]) == (1, "storage_failed")
    assert "File too large" in said["message"]


def test_two_at_once_share_it(hub: FakeHub, tiny: FakeRepository, content: bytes) -> None:
    """The second download shows the progress of the first, and gets its file."""
    hub.hold.clear()
    told: list[Progress] = []
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(pull)
        assert hub.held.wait(PATIENCE_SECONDS)
        second = pool.submit(lambda: pull(told=told))
        wait_until(lambda: any(one.note and one.done_bytes for one in told))
        assert "another download of tiny.gguf is under way" in {one.note for one in told}
        hub.hold.set()
        assert first.result().id == second.result().id == "tiny"
    assert told[-1].note == ""
    assert asked_bytes(hub) == len(content)


def test_the_second_takes_over_where_the_first_fails(hub: FakeHub, tiny: FakeRepository, content: bytes) -> None:
    hub.hold.clear()
    hub.faults = [Refusal(404, spare=3, times=1)]
    told: list[Progress] = []
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(pull)
        assert hub.held.wait(PATIENCE_SECONDS)
        second = pool.submit(lambda: pull(told=told))
        # The first may fail before the second waits for it.
        wait_until(lambda: first.done() or any(one.note for one in told))
        hub.hold.set()
        with pytest.raises(HubUnavailable):
            first.result()
        assert Path(second.result().path).read_bytes() == content


def test_several_files_at_once(hub: FakeHub, tmp_path: Path) -> None:
    folder = tiny_folder(tmp_path / "tiny")
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    hub.repositories["me/tiny"] = FakeRepository(files, tags=("safetensors",))
    told: list[Progress] = []
    model = pull(told=told)
    assert {path.name for path in Path(model.path).iterdir()} == set(files)
    assert told[-1].files_done == len(files)


def test_a_revision_leaves_its_name(hub: FakeHub, tiny: FakeRepository, own_home: Path) -> None:
    snapshot = register.resolve("me/tiny", COMMIT)
    register.download_and_register(snapshot, register.choose(snapshot, None), lambda progress: None)
    assert not (own_home / ".cache/huggingface/hub/models--me--tiny/refs").exists()


def test_an_id_that_is_taken_is_told_first(hub: FakeHub, tiny: FakeRepository, tmp_path: Path) -> None:
    Registry().add(tiny_gguf(tmp_path / "other.gguf"), id="other")
    for id in ("other", "No Id"):
        with pytest.raises(WrongUsage):
            pull(id=id)
    assert asked_bytes(hub) == 0
    assert pull(id="mine").id == "mine"
    assert pull(id="mine").id == "mine"


def test_a_repository_that_moved(hub: FakeHub, tiny: FakeRepository) -> None:
    hub.moved["me/old"] = "me/tiny"
    snapshot = register.resolve("me/old")
    model = register.download_and_register(snapshot, register.choose(snapshot, None), lambda progress: None)
    assert model.source == f"hf:me/tiny@{COMMIT}"


def test_a_quantisation_by_its_name(hub: FakeHub, content: bytes) -> None:
    names = ("tiny-Q4_K_M.gguf", "tiny-Q4_K_S.gguf", "tiny-UD-Q8_0.gguf", "tiny-Q8_0.gguf")
    hub.repositories["me/tiny"] = FakeRepository(dict.fromkeys(names, content))
    snapshot = register.resolve("me/tiny")
    assert register.choose(snapshot, "q4_k_m").file == "tiny-Q4_K_M.gguf"
    for word in ("Q4_K", "Q8_0", "Q5_0"):
        with pytest.raises(FileNeeded):
            register.choose(snapshot, word)


def test_offline(hub: FakeHub, tiny: FakeRepository, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    tiny.files = {**tiny.files, "other-Q4_0.gguf": b"x" * 5000}
    model = pull("tiny.gguf")
    Registry().remove(model.id)
    asked = len(hub.asked)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert pull().path == model.path
    with pytest.raises(
        HubUnavailable, match=r"HF_HUB_OFFLINE is set.*the cache does not have all of me/tiny"
    ) as caught:
        pull("other-Q4_0.gguf")
    assert "unset HF_HUB_OFFLINE" in caught.value.hint
    with pytest.raises(HubUnavailable, match="HF_HUB_OFFLINE is set"):
        register.resolve("me/none")
    assert len(hub.asked) == asked


def test_rate() -> None:
    moments = iter([0.0, 1.0, 2.0, 20.0, 21.0])
    rate = Rate(lambda: next(moments))
    assert [rate.after(done) for done in (500, 600, 800, 800, 1000)] == [None, 100, 150, 0, pytest.approx(200 / 19)]
