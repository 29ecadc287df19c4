"""What takes the space: each content once, holes not at all, and what to do about it."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest

from mmd import paths
from mmd.control.state import swap_events
from mmd.control.state.swap_events import Outcome, SwapEvent
from mmd.control.storage.disk import DiskUse, ModelUse, disk_use
from mmd.registry.store import Registry
from tests.hub_cache import cached_repository
from tests.tiny_models import sparse_gguf, tiny_gguf
from tests.unit.cli.test_cli import mmd

MIB = 1024**2


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def about(size_bytes: int) -> object:
    """Blocks are a file system's own affair."""
    return pytest.approx(size_bytes, rel=0.05)


def look() -> DiskUse:
    return disk_use(Registry().all())


def of_model(model_id: str) -> ModelUse:
    (use,) = (use for use in look().models if use.id == model_id)
    return use


def others(use: DiskUse) -> dict[str, int]:
    return {re.sub(r" \(\d+\)", "", one.what): one.size_bytes for one in use.others}


def fill(path: Path, size_bytes: int = MIB) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(os.urandom(size_bytes))
        file.flush()
        os.fsync(file.fileno())  # some file systems give out blocks only then


def test_hole_takes_no_space(tmp_path: Path) -> None:
    Registry().add(sparse_gguf(tmp_path / "ghost.gguf", 1 << 34))
    assert of_model("ghost").own_bytes < MIB


def test_bytes_that_models_or_names_share_are_counted_once(tmp_path: Path) -> None:
    Registry().add(tiny_gguf(tmp_path / "a.gguf"))
    alone = of_model("a")
    (tmp_path / "b.gguf").hardlink_to(tmp_path / "a.gguf")
    Registry().add(tmp_path / "b.gguf")
    use = look()
    assert [(one.own_bytes, one.shared_bytes) for one in use.models] == [(0, alone.own_bytes)] * 2
    assert use.total_bytes - sum(others(use).values()) == alone.own_bytes


def test_rest_of_the_cache_is_told_by_its_kind(tmp_path: Path, cache: Path) -> None:
    content = tiny_gguf(tmp_path / "a.gguf").read_bytes()
    snapshot = cached_repository(cache, "Org/A", {"a.gguf": content, "b.gguf": content + b"more"})
    model = Registry().add(snapshot / "a.gguf")
    fill(cache / "models--Org--A/blobs/x.mmd.incomplete", 2 * MIB)
    fill(cache / "models--Org--A/blobs/y.damaged", 3 * MIB)
    use = look()
    assert of_model(model.id).where == "Hugging Face cache"
    found = others(use)
    assert found["unfinished downloads"] == about(2 * MIB)
    assert found["damaged downloads"] == about(3 * MIB)
    assert len(content) <= found["the rest of the Hugging Face cache"] < len(content) + 16384


def test_what_is_mmds_own_is_told() -> None:
    fill(paths.engines_dir() / "vllm-1/bin/vllm")
    fill(paths.cache_dir() / "probe", 2 * MIB)
    fill(paths.models_dir() / ".a.mmd-incomplete/a.gguf", 3 * MIB)
    fill(paths.models_dir() / "b/b.gguf", 4 * MIB)
    fill(paths.data_dir() / "models.json.damaged-1", 5 * MIB)
    assert list(others(look()).values()) == [about(one * MIB) for one in (1, 2, 3, 4, 5)]


def test_last_use_and_missing_files_are_told(tmp_path: Path) -> None:
    Registry().add(tiny_gguf(tmp_path / "a.gguf"))
    assert of_model("a").last_used is None
    swaps: tuple[tuple[str, Outcome], ...] = (("01", "resident"), ("02", "resident"), ("03", "failed"))
    for day, outcome in swaps:
        swap_events.keep(SwapEvent(f"2026-01-{day}T00:00:00Z", "a", (), outcome, "not loaded", "", 1.0, {}))
    assert of_model("a").last_used == "2026-01-02T00:00:00Z"
    (tmp_path / "a.gguf").unlink()
    assert of_model("a").missing_files == 1


def test_every_file_system_is_told_once() -> None:
    places = [one.path for one in look().file_systems]
    assert len(set(places)) == len(places) > 0
    assert all(os.path.ismount(place) for place in places)


def test_the_verb_tells_all_of_it_and_what_to_do(tmp_path: Path) -> None:
    Registry().add(tiny_gguf(tmp_path / "a.gguf"))
    done = mmd("disk")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[1].split()[0] == "a"
    assert " in total" in done.stdout
    assert "mmd remove a --files" in done.stderr
    record = json.loads(mmd("disk", "--json").stdout)
    assert set(record) == {"models", "others", "total_bytes", "file_systems"}
