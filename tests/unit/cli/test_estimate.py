"""`mmd estimate` and `mmd doctor --estimates` from outside."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mmd.control.memory import starts_log
from mmd.control.memory.starts_log import StartRecord
from mmd.paths import engine_socket
from mmd.registry.store import Registry
from tests.fakes.hub import FakeHub, FakeRepository, OnDisk
from tests.tiny_models import sparse_gguf, tiny_folder, tiny_gguf

ROOT = Path(__file__).parents[3]
SMALL_GPU = str(ROOT / "tests/machines/rtx4070-12g.json")
LARGE_GPU = str(ROOT / "tests/machines/rtx4090-24g.json")
GIB = 1024**3


def mmd(*words: str, hub: FakeHub | None = None) -> subprocess.CompletedProcess[str]:
    """Run `mmd` in the test's own home, without a user manager and engines."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    endpoint = {"HF_ENDPOINT": hub.url, "HF_HUB_DISABLE_XET": "1"} if hub else {"HF_HUB_OFFLINE": "1"}
    return subprocess.run(
        [sys.executable, "-m", "mmd", *words],
        cwd=ROOT,
        env=environment | endpoint | {"PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
    )


def test_a_file(tmp_path: Path) -> None:
    path = tiny_gguf(tmp_path / "tiny.gguf")
    done = mmd("estimate", str(path), "--context", "512", "--machine", SMALL_GPU, "--json")
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    parts = record["components"]
    assert record["fits"] and record["tier"] == "header" and record["context"] == 512
    assert record["needs_bytes"] == sum(parts.values())
    assert set(parts) == {
        "weights_bytes", "kv_bytes", "state_bytes", "compute_bytes", "projector_bytes", "overhead_bytes",
    }  # fmt: skip
    assert {"error_bytes", "max_context", "suggestions"} <= set(record)


def test_as_people_read_it(tmp_path: Path) -> None:
    done = mmd("estimate", str(tiny_gguf(tmp_path / "tiny.gguf")), "--machine", SMALL_GPU)
    assert done.stdout.startswith(str(tmp_path / "tiny.gguf"))
    assert "needs " in done.stdout and "fits" in done.stdout and "KV" in done.stdout


def test_what_does_not_fit_has_a_status_of_its_own(tmp_path: Path) -> None:
    path = sparse_gguf(tmp_path / "large.gguf", 400 * 10**9)
    done = mmd("estimate", str(path), "--machine", SMALL_GPU)
    assert done.returncode == 4
    assert "does not fit" in done.stdout
    assert not done.stderr


def test_a_registered_model_by_its_id(tmp_path: Path) -> None:
    Registry().add(tiny_gguf(tmp_path / "tiny.gguf"), id="it")
    done = mmd("estimate", "it", "--machine", LARGE_GPU)
    assert (done.returncode, done.stdout.splitlines()[0]) == (0, "it")


def test_a_registered_model_whose_file_is_gone(tmp_path: Path) -> None:
    Registry().add(tiny_gguf(tmp_path / "tiny.gguf"), id="it")
    (tmp_path / "tiny.gguf").unlink()
    done = mmd("estimate", "it")
    assert (done.returncode, done.stdout) == (1, "")
    assert "its file is missing" in done.stderr


def test_a_folder_of_safetensors(tmp_path: Path) -> None:
    done = mmd("estimate", str(tiny_folder(tmp_path / "it")), "--machine", LARGE_GPU, "--json")
    assert json.loads(done.stdout)["components"]["weights_bytes"] > 0


@pytest.mark.parametrize(
    "asked",
    [
        "nothing",
        "a/b/c",
        "/no/such.gguf",
        "./gone.gguf",
        "~nobody/model.gguf",
        "a" * 5000,
        f"/{'a' * 300}",
        "/proc/self/mem",
    ],
)
def test_what_is_nowhere(asked: str) -> None:
    done = mmd("estimate", asked)
    assert done.returncode in (1, 3)
    assert len(done.stderr.splitlines()) == 2
    assert not done.stdout


def test_of_several_the_one_that_suits_the_machine(hub: FakeHub, tmp_path: Path) -> None:
    sizes = {"it-Q4_K_M.gguf": 8, "it-Q8_0.gguf": 14, "it-F16.gguf": 27}
    files = {name: OnDisk(sparse_gguf(tmp_path / name, gb * 10**9), sha256=f"{gb:064}") for name, gb in sizes.items()}
    hub.repositories["me/it-GGUF"] = FakeRepository(files)
    small = mmd("estimate", "me/it-GGUF", "--machine", SMALL_GPU, hub=hub)
    assert small.stdout.startswith("me/it-GGUF:it-Q4_K_M.gguf, the largest that fits")
    large = mmd("estimate", "me/it-GGUF", "--machine", LARGE_GPU, hub=hub)
    assert large.stdout.startswith("me/it-GGUF:it-Q8_0.gguf")
    assert sum(hub.sent) <= 2 << 20


def test_a_smaller_one_of_the_repository_is_suggested(hub: FakeHub, tmp_path: Path) -> None:
    sizes = {"it-Q4_K_M.gguf": 8, "it-Q8_0.gguf": 14}
    files = {name: OnDisk(sparse_gguf(tmp_path / name, gb * 10**9), sha256=f"{gb:064}") for name, gb in sizes.items()}
    hub.repositories["me/it-GGUF"] = FakeRepository(files)
    for words in (("me/it-GGUF:it-Q8_0.gguf",), ("me/it-GGUF", "--file", "it-Q8_0.gguf")):
        done = mmd("estimate", *words, "--machine", SMALL_GPU, hub=hub)
        assert "mmd pull me/it-GGUF:it-Q4_K_M.gguf" in done.stdout, done.stderr


def test_a_file_named_twice() -> None:
    assert mmd("estimate", "me/it:a.gguf", "--file", "b.gguf").returncode == 2


def test_offline_is_said() -> None:
    done = mmd("estimate", "me/it")
    assert done.returncode == 1
    assert "HF_HUB_OFFLINE" in done.stderr


# -- doctor


def a_start(**changes: object) -> StartRecord:
    usual: dict[str, object] = {
        "at": "2026-11-21T05:00:00+00:00", "invocation": "i", "model": "it", "weights": "w", "engine": "llama-server 1",
        "command": "c", "gpu": "", "context": 4096, "predicted": {"weights_bytes": 11 * GIB, "kv_bytes": GIB},
        "measured": {"weights_bytes": 10 * GIB}, "compute_factor": 1.0,
    }  # fmt: skip
    return StartRecord(**usual | changes)  # type: ignore[arg-type]


def test_predicted_memory_beside_the_measured() -> None:
    starts_log.append(a_start())
    done = mmd("doctor", "--estimates")
    assert done.returncode == 0
    assert done.stdout.splitlines()[1].split() == [
        "it", "llama-server", "1", "4096", "weights", "11.0", "GiB", "10.0", "GiB", "+10.0%",
    ]  # fmt: skip
    (record,) = json.loads(mmd("doctor", "--estimates", "--json").stdout)
    assert record["errors"] == {"weights_bytes": 0.1}


def test_nothing_was_measured_yet() -> None:
    done = mmd("doctor", "--estimates")
    assert (done.returncode, done.stdout) == (0, "")
    assert "mmd activate" in done.stderr


def test_a_start_is_measured_once() -> None:
    assert not starts_log.is_unmeasured("it")
    engine_socket("it").parent.mkdir(parents=True)
    engine_socket("it").touch()
    assert starts_log.is_unmeasured("it")
    starts_log.append(a_start())
    assert starts_log.is_unmeasured("it")  # an older start was measured
    os.utime(engine_socket("it"), (0, 0))
    assert not starts_log.is_unmeasured("it")
