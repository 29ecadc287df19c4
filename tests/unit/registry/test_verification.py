"""Verify files against the manifest, against the names in the cache, or against what was recorded first."""

from __future__ import annotations

import ctypes
import hashlib
import mmap
import os
from pathlib import Path

import pytest

from mmd.registry import hashing, manifest
from mmd.registry.manifest import Origin
from mmd.registry.record import Model
from mmd.registry.store import Registry
from mmd.registry.verification import Finding, Verdict, Verification
from tests.hub_cache import cached_repository
from tests.tiny_models import sparse_gguf, tiny_gguf, tiny_safetensors


def sha256(path: str | Path) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def verified(*models: Model, trust: bool = False) -> dict[str, Finding]:
    """By file name."""
    return {Path(one.path).name: one for one in Verification(models, trust=trust).run(lambda _: None)}


def flip_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


@pytest.fixture
def model(tmp_path: Path) -> Model:
    model = Registry().add(tiny_gguf(tmp_path / "a.gguf"))
    manifest.write(model, {model.path: sha256(model.path)})
    return model


def test_intact_file_is_told_with_who_knows_its_hash(model: Model) -> None:
    found = verified(model)["a.gguf"]
    assert (found.verdict, found.origin, found.mend) == (Verdict.INTACT, Origin.HUB, "")
    assert found.expected == found.found == sha256(model.path)


def test_one_flipped_byte_is_damage_and_nothing_is_touched(model: Model) -> None:
    expected = sha256(model.path)
    flip_a_byte(Path(model.path))
    damaged, kept = Path(model.path).read_bytes(), manifest.file_for("a").read_bytes()
    found = verified(model)["a.gguf"]
    assert (found.verdict, found.expected, found.found) == (Verdict.DAMAGED, expected, sha256(model.path))
    assert "put the file back" in found.mend
    assert (Path(model.path).read_bytes(), manifest.file_for("a").read_bytes()) == (damaged, kept)


def test_file_of_another_size_is_not_read(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    os.truncate(model.path, 100)
    monkeypatch.setattr(hashing, "_digest", None)
    verification = Verification([model])
    (found,) = verification.run(lambda _: None)
    assert verification.bytes_to_read == 0
    assert (found.verdict, found.found) == (Verdict.DAMAGED, "100 bytes")


def test_missing_file_is_told_as_such(model: Model) -> None:
    Path(model.path).unlink()
    assert verified(model)["a.gguf"].verdict is Verdict.MISSING


def test_small_file_that_was_there_once_is_missed(tmp_path: Path) -> None:
    folder = tiny_safetensors(tmp_path / "m", files={"tokenizer.json": "{}"})
    model = Registry().add(folder)
    assert {one.verdict for one in verified(model).values()} == {Verdict.RECORDED}
    (folder / "tokenizer.json").unlink()
    found = verified(model)
    assert found["tokenizer.json"].verdict is Verdict.MISSING
    assert found["model.safetensors"].verdict is Verdict.INTACT


def test_weights_of_an_earlier_version_are_not_missed(tmp_path: Path) -> None:
    folder = tiny_safetensors(tmp_path / "m")
    verified(Registry().add(folder))
    (folder / "model.safetensors").rename(folder / "model-00001-of-00001.safetensors")
    assert {one.verdict for one in verified(Registry().add(folder)).values()} == {Verdict.INTACT, Verdict.RECORDED}


def test_unreadable_file_is_told_with_the_reason(model: Model) -> None:
    Path(model.path).unlink()
    Path(model.path).mkdir()
    manifest.forget("a")
    found = verified(model)["a.gguf"]
    assert (found.verdict, found.reason) == (Verdict.UNREADABLE, "it is not a regular file")


def test_unknown_hash_is_recorded_and_later_compared(tmp_path: Path) -> None:
    model = Registry().add(tiny_gguf(tmp_path / "a.gguf"))
    assert verified(model)["a.gguf"].verdict is Verdict.RECORDED
    assert manifest.read("a")[model.path].origin is Origin.HERE
    assert verified(model)["a.gguf"].verdict is Verdict.INTACT
    flip_a_byte(Path(model.path))
    assert verified(model)["a.gguf"].verdict is Verdict.DAMAGED


def test_trust_takes_what_is_there(model: Model) -> None:
    flip_a_byte(Path(model.path))
    assert verified(model, trust=True)["a.gguf"].verdict is Verdict.RECORDED
    assert verified(model)["a.gguf"].origin is Origin.HERE


def test_file_of_the_cache_is_compared_with_its_blobs_name(tmp_path: Path) -> None:
    content = tiny_gguf(tmp_path / "made.gguf").read_bytes()
    snapshot = cached_repository(tmp_path / "hub", "Org/A-GGUF", {"a.gguf": content})
    model = Registry().add(snapshot / "a.gguf")
    flip_a_byte((snapshot / "a.gguf").resolve())
    found = verified(model)["a.gguf"]
    assert (found.verdict, found.expected) == (Verdict.DAMAGED, hashlib.sha256(content).hexdigest())
    assert found.mend == f"hf download Org/A-GGUF a.gguf --revision {'a' * 40} --force-download"
    (snapshot / "a.gguf").resolve().write_bytes(content)
    assert verified(model)["a.gguf"].verdict is Verdict.INTACT
    assert manifest.read(model.id)[model.path].origin is Origin.HUB


def test_small_file_of_the_cache_is_compared_with_gits_hash(tmp_path: Path) -> None:
    made = tiny_safetensors(tmp_path / "made", files={"tokenizer.json": "{}"})
    snapshot = cached_repository(tmp_path / "hub", "Org/S", {path.name: path.read_bytes() for path in made.iterdir()})
    model = Registry().add(snapshot)
    (snapshot / "tokenizer.json").resolve().write_text("[]")
    found = verified(model)
    assert {name: one.verdict for name, one in found.items()} == {
        "model.safetensors": Verdict.INTACT,
        "config.json": Verdict.INTACT,
        "tokenizer.json": Verdict.DAMAGED,
    }
    assert found["tokenizer.json"].expected == (snapshot / "tokenizer.json").resolve().name
    kept = manifest.read(model.id)
    assert kept[str(snapshot / "config.json")].origin is Origin.HUB
    assert str(snapshot / "tokenizer.json") not in kept
    (snapshot / "tokenizer.json").resolve().write_text("{}")
    assert {one.verdict for one in verified(model).values()} == {Verdict.INTACT}


def test_blob_in_the_caches_shared_store_goes_by_the_first_name(tmp_path: Path) -> None:
    """In that store a file is named by xet's hash, which looks like a sha256 and is none."""
    content = tiny_gguf(tmp_path / "made.gguf").read_bytes()
    snapshot = cached_repository(tmp_path / "hub", "Org/A-GGUF", {"a.gguf": content})
    blob, shared = (snapshot / "a.gguf").resolve(), tmp_path / "hub" / "blobs" / ("e" * 64)
    shared.parent.mkdir()
    blob.rename(shared)
    blob.symlink_to(shared)
    assert verified(Registry().add(snapshot / "a.gguf"))["a.gguf"].verdict is Verdict.INTACT


def test_file_that_two_models_share_is_read_once(tmp_path: Path) -> None:
    first, twin = sparse_gguf(tmp_path / "a.gguf"), tmp_path / "b.gguf"
    twin.hardlink_to(first)
    models = [Registry().add(first), Registry().add(twin)]
    verification = Verification(models)
    read: list[int] = []
    findings = verification.run(read.append)
    assert verification.bytes_to_read == read[-1] == first.stat().st_size
    assert [one.verdict for one in findings] == [Verdict.RECORDED] * 2


# --- hashing


def test_hashes_of_many_files_are_right_whatever_their_size(tmp_path: Path) -> None:
    sizes = (0, 1, hashing._BLOCK_BYTES - 1, hashing._BLOCK_BYTES, 3 * hashing._BLOCK_BYTES + 5)
    files = [str(tmp_path / str(size)) for size in sizes]
    for path, size in zip(files, sizes, strict=True):
        Path(path).write_bytes(os.urandom(size))
    assert hashing.sha256_of(files, lambda _: None) == {path: sha256(path) for path in files}


def test_interrupt_ends_the_threads_in_mid_file(tmp_path: Path) -> None:
    (tmp_path / "large").touch()
    os.truncate(tmp_path / "large", 1 << 40)  # a hole that would take ten minutes

    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        hashing.sha256_of([str(tmp_path / "large")], interrupt)


@pytest.mark.parametrize("was_cached", [True, False])
def test_page_cache_is_left_as_it_was(tmp_path: Path, was_cached: bool) -> None:
    file = tmp_path / "weights"
    file.write_bytes(os.urandom(4 << 20))
    with file.open("rb") as opened:
        os.fsync(opened.fileno())
        if not was_cached:
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    if is_cached(file) is not was_cached:
        pytest.skip("the file system of the tests has no page cache of its own, or does not tell")
    hashing.sha256_of([str(file)], lambda _: None)
    assert is_cached(file) is was_cached


def is_cached(file: Path) -> bool:
    """Most of it: on a busy machine the kernel leaves a page behind, or lets one go. Asked of the kernel by mincore():
    a read, even one that does not wait, brings pages in.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    length = file.stat().st_size
    pages = (ctypes.c_ubyte * -(-length // mmap.PAGESIZE))()
    with file.open("rb") as opened:
        place = libc.mmap(
            None, ctypes.c_size_t(length), mmap.PROT_READ, mmap.MAP_SHARED, opened.fileno(), ctypes.c_long(0)
        )
        try:
            assert libc.mincore(ctypes.c_void_p(place), ctypes.c_size_t(length), pages) == 0
        finally:
            libc.munmap(ctypes.c_void_p(place), ctypes.c_size_t(length))
    return sum(page & 1 for page in pages) > len(pages) // 2


@pytest.mark.parametrize("is_known", [True, False])
def test_file_growing_during_verification_is_not_recorded(model: Model, is_known: bool) -> None:
    """What is being downloaded by another program was recorded with a size and a hash that did not belong together."""
    if not is_known:
        manifest.forget("a")
    verification = Verification([model])
    with Path(model.path).open("ab") as file:
        file.write(b"more")
    (found,) = verification.run(lambda _: None)
    assert (found.verdict, found.reason) == (Verdict.UNREADABLE, "it changed while it was read")
    assert found.mend.startswith("mmd verify a ")
    assert "a.gguf" in manifest.file_for("a").read_text() if is_known else not manifest.read("a")


def test_named_pipe_in_place_of_a_file_is_not_waited_for(model: Model) -> None:
    Path(model.path).unlink()
    os.mkfifo(model.path)
    manifest.forget("a")
    assert verified(model)["a.gguf"].verdict is Verdict.UNREADABLE


def test_undecodable_name_is_not_a_models_file(tmp_path: Path) -> None:
    folder = tiny_safetensors(tmp_path / "m")
    Path(os.fsdecode(os.fsencode(folder) + b"/\xff.json")).touch()
    assert set(verified(Registry().add(folder))) == {"config.json", "model.safetensors"}
