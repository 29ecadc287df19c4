"""Manifests are kept when a model is added again, removed with it, and never written in part."""

from __future__ import annotations

import json
import logging
import resource
from pathlib import Path

import pytest

from mmd.errors import StorageFailed
from mmd.registry import manifest
from mmd.registry.manifest import Entry, Origin
from mmd.registry.store import Registry
from tests.tiny_models import tiny_gguf, tiny_safetensors

HASH = "0123456789abcdef" * 4
OTHER = "fedcba9876543210" * 4


def test_what_is_written_is_read(tmp_path: Path) -> None:
    model = Registry().add(tiny_gguf(tmp_path / "a.gguf"))
    manifest.write(model, {model.path: HASH.upper()})
    entry = manifest.read("a")[model.path]
    assert (entry.size_bytes, entry.sha256, entry.origin) == (Path(model.path).stat().st_size, HASH, Origin.HUB)
    assert entry.since is not None
    assert entry.since.endswith("Z")
    assert manifest.file_for("a").stat().st_mode & 0o777 == 0o600


def test_model_without_one_has_an_empty_one() -> None:
    assert manifest.read("nobody") == {}


def test_file_that_was_never_hashed_has_a_size_alone(tmp_path: Path) -> None:
    model = Registry().add(tiny_safetensors(tmp_path / "m", files={"tokenizer.json": "{}", "notes.txt": "mine"}))
    weights = str(tmp_path / "m/model.safetensors")
    manifest.write(model, {weights: HASH})
    kept = manifest.read(model.id)
    assert kept[str(tmp_path / "m/tokenizer.json")] == Entry(2)
    assert kept[weights].sha256 == HASH
    assert sorted(Path(path).name for path in kept) == ["config.json", "model.safetensors", "tokenizer.json"]


def test_hash_that_is_known_stays_where_nothing_newer_is_said(tmp_path: Path) -> None:
    model = Registry().add(tiny_safetensors(tmp_path / "m"))
    weights, config = (str(tmp_path / "m" / name) for name in ("model.safetensors", "config.json"))
    manifest.write(model, {weights: HASH})
    manifest.write(model, {config: OTHER}, Origin.HERE)
    kept = manifest.read(model.id)
    assert (kept[weights].sha256, kept[weights].origin) == (HASH, Origin.HUB)
    assert (kept[config].sha256, kept[config].origin) == (OTHER, Origin.HERE)


def test_it_stays_when_the_model_is_added_again_and_goes_with_it(tmp_path: Path) -> None:
    model = Registry().add(tiny_gguf(tmp_path / "a.gguf"))
    manifest.write(model, {model.path: HASH})
    Registry().add(tiny_gguf(tmp_path / "a.gguf", n_layers=1))
    assert manifest.read("a")[model.path].sha256 == HASH
    Registry().remove("a")
    assert not manifest.file_for("a").exists()


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        '{"files": [1]}',
        '{"files": {"/a": {"size_bytes": "1", "sha256": null, "origin": null, "since": null}}}',
        '{"files": {"/a": {"size_bytes": 1, "sha256": "short", "origin": null, "since": null}}}',
        '{"files": {"/a": {"size_bytes": 1, "sha256": null, "origin": "heaven", "since": null}}}',
        '{"files": {"/a": {"size_bytes": -1}}}',
        '{"files": {"/a": {"sha256": null}}}',
    ],
)
def test_damaged_one_is_kept_aside_and_told(content: str, caplog: pytest.LogCaptureFixture) -> None:
    file = manifest.file_for("a")
    file.parent.mkdir(parents=True)
    file.write_text(content)
    with caplog.at_level(logging.WARNING):
        assert manifest.read("a") == {}
    (aside,) = file.parent.iterdir()
    assert aside.name.startswith("a.json.damaged-")
    assert aside.read_text() == content
    assert aside.name in caplog.text


def test_unreadable_one_is_an_error_of_two_lines() -> None:
    manifest.file_for("a").mkdir(parents=True)
    with pytest.raises(StorageFailed, match="cannot be read: Is a directory") as caught:
        manifest.read("a")
    assert caught.value.hint.startswith("ls -l ")


def test_full_disk_leaves_the_old_one(tmp_path: Path) -> None:
    model = Registry().add(tiny_gguf(tmp_path / "a.gguf"))
    manifest.write(model, {model.path: HASH})
    before = manifest.file_for("a").read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, limits[1]))
    try:
        with pytest.raises(StorageFailed, match="cannot be written"):
            manifest.write(model, {model.path: OTHER})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert manifest.file_for("a").read_bytes() == before
    assert json.loads(before)["model"] == "a"
