"""Folders full of models, as people have them: everything runnable is found, and the rest has a reason."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from mmd.atomic import write_atomically
from mmd.paths import cache_dir
from mmd.registry import store
from mmd.registry.scan import Scan, scan
from mmd.registry.store import NewModel, Registry
from tests.hub_cache import cached_repository
from tests.tiny_models import safetensors_bytes, sparse_gguf, tiny_gguf, tiny_safetensors
from tests.unit.cli.test_cli import mmd, refused

PROJECTOR = {"general.architecture": "clip", "general.type": "mmproj"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "models").mkdir()
    return tmp_path / "models"


def gguf(path: Path, metadata: Mapping[str, object] | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return sparse_gguf(path, metadata=metadata)


def found(result: Scan, root: Path) -> list[str]:
    return [os.path.relpath(new.found.path, root) for new in result.news]


def reasons(result: Scan) -> dict[str, str]:
    return {Path(one.path).name: one.reason for one in result.skipped}


def test_tree_is_searched_to_its_bottom(folder: Path) -> None:
    gguf(folder / "a.gguf")
    gguf(folder / "publisher/b-GGUF/b.gguf")
    tiny_safetensors(folder / "deep/er/c")
    assert found(scan(folder), folder) == ["a.gguf", "deep/er/c", "publisher/b-GGUF/b.gguf"]


def test_parts_and_projectors_belong_to_their_model(folder: Path) -> None:
    for number in (1, 2):
        gguf(folder / f"big-{number:05}-of-00002.gguf", {"split.count": 2, "split.no": number - 1})
    gguf(folder / "see/see.gguf", {"llama.embedding_length": 64})
    gguf(folder / "see/mmproj-see.gguf", PROJECTOR)
    result = scan(folder)
    assert found(result, folder) == ["big-00001-of-00002.gguf", "see/see.gguf"]
    assert len(result.news[0].found.files) == 2
    assert result.news[1].found.projector == str(folder / "see/mmproj-see.gguf")
    assert result.skipped == []


def test_what_is_not_whole_is_left_out_with_the_reason(folder: Path) -> None:
    gguf(folder / "big-00001-of-00002.gguf", {"split.count": 2, "split.no": 0})
    (folder / "half.gguf.incomplete").touch()
    (folder / "damaged.gguf").write_bytes(b"GGUF\x03")
    (folder / "gone.gguf").symlink_to("nowhere")
    (folder / "gguf.gguf").mkdir()
    said = reasons(scan(folder))
    assert said["big-00001-of-00002.gguf"].startswith("is incomplete: 1 of 2 parts")
    assert said["half.gguf.incomplete"] == "its download is not complete"
    assert said["gone.gguf"] == "it is a dangling link"
    assert set(said) == {"big-00001-of-00002.gguf", "half.gguf.incomplete", "damaged.gguf", "gone.gguf"}


def test_other_formats_are_left_out_once_each(folder: Path) -> None:
    (folder / "pickled").mkdir()
    (folder / "pickled/config.json").write_text("{}")
    (folder / "pickled/pytorch_model.bin").touch()
    tiny_safetensors(folder / "pipeline/unet")
    (folder / "pipeline/model_index.json").write_text("{}")
    (folder / "pipeline/x.safetensors").touch()
    sentences = tiny_safetensors(folder / "sentences", {"architectures": ["BertModel"]}, files={"modules.json": "[]"})
    (sentences / "2_Dense").mkdir()
    (sentences / "2_Dense/model.safetensors").write_bytes(safetensors_bytes({"w": ("F16", (4,))}))
    (sentences / "2_Dense/config.json").write_text("{}")
    result = scan(folder)
    assert found(result, folder) == ["sentences"]
    assert set(reasons(result)) == {"pickled", "pipeline"}


def test_links_are_followed_and_loops_end(folder: Path, tmp_path: Path) -> None:
    gguf(tmp_path / "elsewhere/a.gguf")
    (folder / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere/back").symlink_to(folder)
    (folder / "again.gguf").symlink_to(tmp_path / "elsewhere/a.gguf")
    result = scan(folder)
    assert found(result, folder) == ["again.gguf"]
    assert reasons(result) == {"a.gguf": f"the same file as another: {folder / 'again.gguf'}"}


def test_registered_model_by_another_name_is_not_found_again(folder: Path, tmp_path: Path) -> None:
    Registry().add(gguf(tmp_path / "a.gguf"))
    (folder / "b.gguf").hardlink_to(tmp_path / "a.gguf")
    assert scan(folder, Registry().all()).news == []


def test_folder_that_may_not_be_read_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a refusal of the system call: root, as whom the tests may run, is refused nothing."""
    gguf(folder / "a.gguf")
    (folder / "secret").mkdir()
    scandir = os.scandir

    def guarded(path: str) -> object:
        if os.fspath(path).endswith("secret"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", guarded)
    result = scan(folder)
    assert found(result, folder) == ["a.gguf"]
    assert reasons(result) == {"secret": "Permission denied"}


def test_files_that_only_look_like_models_are_passed_by(tmp_path: Path) -> None:
    """Ghosts for estimates, and what an interrupted archive or restore left."""
    gguf(cache_dir() / "ghost/a.gguf")
    gguf(tmp_path / "nas/.a.mmd-incomplete/a.gguf")
    result = scan(tmp_path)
    assert (result.news, result.skipped) == ([], [])


def test_name_that_cannot_be_written_down_is_left_out(folder: Path) -> None:
    gguf(folder / "a.gguf").rename(folder / "a\udcff.gguf")
    (skipped,) = scan(folder).skipped
    assert "has unprintable characters" in skipped.reason
    assert skipped.path.isprintable()


# --- other tools' stores


def test_cache_is_searched_by_its_newest_names(tmp_path: Path) -> None:
    cache = tmp_path / "hub"
    content = {"a.gguf": tiny_gguf(tmp_path / "a.gguf").read_bytes()}
    cached_repository(cache, "Org/A-GGUF", content, commit="0" * 40, ref=None)
    cached_repository(cache, "Org/A-GGUF", content, commit="f" * 40)
    (cache / "models--Org--A-GGUF/blobs/x.incomplete").touch()
    (cache / "datasets--Org--D/snapshots/c").mkdir(parents=True)
    gguf(cache / "datasets--Org--D/snapshots/c/a.gguf")
    (new,) = scan(cache).news
    assert new.source == f"hf:Org/A-GGUF@{'f' * 40}"
    assert Registry().add_many([new])[0].model.path == new.found.path


def test_store_of_ollama_is_read_by_its_manifests(folder: Path) -> None:
    digest, manifest = "c" * 64, folder / "manifests/registry.ollama.ai/library/qwen3/8b"
    gguf(folder / f"blobs/sha256-{digest}")
    (folder / f"blobs/sha256-{'d' * 64}").write_text("a licence")
    manifest.parent.mkdir(parents=True)
    layers = [
        {"mediaType": "application/vnd.ollama.image.license", "digest": f"sha256:{'d' * 64}"},
        {"mediaType": "application/vnd.ollama.image.model", "digest": f"sha256:{digest}"},
    ]
    manifest.write_text(json.dumps({"layers": layers}))
    manifest.with_name("damaged").write_text("{")
    manifest.with_name("odd").write_text('{"layers": [{"mediaType": 1}, 2]}')
    (added,) = Registry().add_many(scan(folder).news)
    assert added.model.id == "qwen3-8b"


# --- many at once


def test_many_are_registered_in_one_write_with_ids_of_their_own(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("x/m.gguf", "y/m.gguf", "z/m.gguf"):
        gguf(folder / name)
    writes: list[Path] = []

    def counted(file: Path, content: bytes) -> os.stat_result:
        writes.append(file)
        return write_atomically(file, content)

    monkeypatch.setattr(store, "write_atomically", counted)
    news = scan(folder).news
    ids = [one.model.id for one in Registry().add_many(news)]
    assert (len(set(ids)), len(writes)) == (3, 1)
    assert [one.is_new for one in Registry().add_many(news)] == [False] * 3
    assert len(writes) == 1, "nothing new is nothing written"


def test_one_taken_id_registers_nothing(folder: Path) -> None:
    first, second = (
        NewModel(scan(gguf(folder / name).parent).news[0].found, id="same") for name in ("x/a.gguf", "y/b.gguf")
    )
    with pytest.raises(Exception, match="belongs to"):
        Registry().add_many([first, second])
    assert Registry().all() == ()


# --- the verb


def test_add_of_a_tree_prints_a_table_and_what_is_left_out(folder: Path) -> None:
    gguf(folder / "a.gguf")
    gguf(folder / "below/b.gguf")
    for number in range(5):
        (folder / f"{number}.incomplete").touch()
    Registry().add(folder / "a.gguf")
    done = mmd("add", str(folder))
    assert done.returncode == 0, done.stderr
    assert [line.split()[:2] for line in done.stdout.splitlines()[1:]] == [["a", "already"], ["b", "added"]]
    assert "skipped (5 files): its download is not complete" in done.stderr
    assert "and 2 more" in done.stderr
    record = json.loads(mmd("add", str(folder), "--json").stdout)
    assert (len(record["known"]), record["added"], len(record["skipped"])) == (2, [], 5)
    said, _ = refused(mmd("add", str(folder), "--id", "x"), 2)
    assert "contains 2 models" in said


def test_add_of_a_folder_with_one_model_is_as_it_was(folder: Path) -> None:
    gguf(folder / "a.gguf")
    done = mmd("add", str(folder), "--id", "mine")
    assert (done.returncode, done.stdout) == (0, "mine\n")
    assert "start it: mmd activate mine" in done.stderr


def test_add_of_an_empty_folder_says_so(folder: Path) -> None:
    said, _ = refused(mmd("add", str(folder)), 1)
    assert "holds no model" in said


def test_add_alone_searches_the_cache(tmp_path: Path) -> None:
    said, _ = refused(mmd("add", HF_HUB_CACHE=str(tmp_path / "none")), 2)
    assert "no Hugging Face cache" in said
    content = {"a-q4_0.gguf": sparse_gguf(tmp_path / "a.gguf").read_bytes()}
    cached_repository(tmp_path / "hub", "Org/A-GGUF", content)
    done = mmd("add", HF_HUB_CACHE=str(tmp_path / "hub"))
    assert done.stdout.splitlines()[1].split()[:2] == ["a", "added"]


def test_folder_that_may_be_listed_and_not_entered_is_left_out(folder: Path) -> None:
    """It ended the whole scan with a traceback. By a process of its own, as root is refused nothing."""
    gguf(folder / "a.gguf")
    gguf(folder / "mine/c.gguf")
    gguf(folder / "theirs/b.gguf")
    (folder / "theirs").chmod(0o644)
    unprivileged = ("setpriv", "--bounding-set=-dac_override,-dac_read_search") if os.geteuid() == 0 else ()
    words = [*unprivileged, sys.executable, "-m", "mmd", "add", str(folder), "--json"]
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=50)
    finally:
        (folder / "theirs").chmod(0o755)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert [model["id"] for model in told["added"]] == ["a", "c"]
    assert told["skipped"] == [{"path": str(folder / "theirs"), "reason": "Permission denied"}]
