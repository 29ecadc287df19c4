"""Put away and brought back: whole and compared, or not there at all."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path

import pytest

from mmd import paths
from mmd.errors import BadModelFile, MmdError, NoSpace, StorageFailed, WrongUsage
from mmd.registry import copying, manifest
from mmd.registry.archive import Archiving, Restoring
from mmd.registry.disposal import disposal_of
from mmd.registry.manifest import Origin
from mmd.registry.record import Model
from mmd.registry.store import Registry
from mmd.registry.verification import Verdict, Verification
from tests.hub_cache import cached_repository
from tests.tiny_models import sparse_gguf, tiny_gguf, tiny_safetensors
from tests.unit.cli.test_cli import mmd, refused


def quietly(_: int) -> None: ...


@pytest.fixture
def nas(tmp_path: Path) -> Path:
    (tmp_path / "nas").mkdir()
    return tmp_path / "nas"


@pytest.fixture
def model(tmp_path: Path) -> Model:
    return Registry().add(tiny_gguf(tmp_path / "a.gguf"), source="hf:Org/A@c0ffee")


def archived(model: Model, nas: Path) -> Path:
    work = Archiving(model, nas)
    work.copy(quietly)
    work.verify(quietly)
    return work.finish()


def restored(archive: Path) -> Model:
    work = Restoring(archive, Registry())
    work.copy(quietly)
    work.verify(quietly)
    return work.finish()


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def limit_on_files() -> Iterator[Callable[[int], None]]:
    """Writes fail beyond it, as on a full disk, for root as well."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda limit: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


# --- there and back


def test_model_comes_back_as_it_was(model: Model, nas: Path) -> None:
    content = Path(model.path).read_bytes()
    folder = archived(model, nas)
    assert folder == nas / "a"
    assert (folder / "a.gguf").read_bytes() == content
    Registry().remove("a")
    Path(model.path).unlink()
    back = restored(folder)
    assert back.path == str(paths.models_dir() / "a/a.gguf")
    assert Path(back.path).read_bytes() == content
    assert (back.id, back.source, back.added, back.facts) == (model.id, model.source, model.added, model.facts)
    assert Registry().get("a") == back
    assert manifest.read("a")[back.path].origin is Origin.HERE
    assert {one.verdict for one in Verification([back]).run(quietly)} == {Verdict.INTACT}
    assert [path.name for path in paths.models_dir().iterdir()] == ["a"]
    assert paths.models_dir().stat().st_mode & 0o777 == 0o700


def test_folder_of_safetensors_keeps_all_that_its_engine_reads(tmp_path: Path, nas: Path) -> None:
    files = {"tokenizer.json": "{}", "README.md": "a card", "modules.json": "[]", "1_Pooling/config.json": "{}"}
    folder = tiny_safetensors(tmp_path / "emb", {"architectures": ["BertModel"]}, files=files)
    model = Registry().add(folder)
    archive = archived(model, nas)
    Registry().remove(model.id)
    back = restored(archive)
    assert tree(Path(back.path)) == tree(folder)
    assert back.facts.type == model.facts.type == "embedding"


def test_parts_and_projector_travel_from_the_cache_as_files(tmp_path: Path, nas: Path) -> None:
    made = tmp_path / "made"
    made.mkdir()
    for number in (1, 2):
        sparse_gguf(
            made / f"see-{number:05}-of-00002.gguf",
            metadata={"split.count": 2, "split.no": number - 1, "llama.embedding_length": 64},
        )
    sparse_gguf(made / "mmproj-see.gguf", metadata={"general.architecture": "clip", "general.type": "mmproj"})
    snapshot = cached_repository(tmp_path / "hub", "Org/See", {p.name: p.read_bytes() for p in made.iterdir()})
    model = Registry().add(snapshot / "see-00001-of-00002.gguf")
    archive = archived(model, nas)
    assert not any(path.is_symlink() for path in archive.iterdir())
    Registry().remove(model.id)
    back = restored(archive)
    assert back.projector == str(paths.models_dir() / back.id / "mmproj-see.gguf")
    assert {entry.origin for entry in manifest.read(back.id).values()} == {Origin.HUB}


def test_archive_is_a_folder_that_can_be_added_as_it_is(model: Model, nas: Path) -> None:
    archive = archived(model, nas)
    assert sorted(path.name for path in archive.iterdir()) == ["a.gguf", "mmd-manifest.json", "mmd-model.toml"]
    assert Registry().add(archive, id="from-nas").facts == model.facts


# --- what goes wrong


def test_destination_that_is_not_there_is_never_made(model: Model, nas: Path) -> None:
    with pytest.raises(WrongUsage, match="there is no folder") as caught:
        Archiving(model, nas / "unmounted")
    assert "mount" in caught.value.hint
    archived(model, nas)
    with pytest.raises(WrongUsage, match="exists already"):
        Archiving(model, nas)


def test_damaged_source_is_not_archived(model: Model, nas: Path) -> None:
    manifest.write(model, {model.path: "0" * 64})
    work = Archiving(model, nas)
    with pytest.raises(BadModelFile, match="is damaged and was not copied"):
        work.copy(quietly)
    assert not (nas / "a").exists()
    assert list(work.partial.iterdir()) == []
    manifest.forget("a")
    archived(model, nas)


def test_source_that_cannot_be_read_is_not_taken_for_a_full_disk(
    model: Model, nas: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> str:
        raise OSError(errno.EIO, "Input/output error")

    work = Archiving(model, nas)
    monkeypatch.setattr(copying, "digest_while_reading", fail)
    with pytest.raises(BadModelFile, match=r"a\.gguf cannot be read: Input/output error"):
        work.copy(quietly)


def test_what_another_version_left_is_not_archived(model: Model, nas: Path) -> None:
    (nas / ".a.mmd-incomplete").mkdir()
    (nas / ".a.mmd-incomplete/old.gguf").touch()
    assert not (archived(model, nas) / "old.gguf").exists()


def test_missing_source_is_named(model: Model, nas: Path) -> None:
    Path(model.path).unlink()
    with pytest.raises(BadModelFile, match=r"a\.gguf cannot be read"):
        Archiving(model, nas)


def test_damaged_copy_is_deleted_and_made_again(model: Model, nas: Path) -> None:
    work = Archiving(model, nas)
    work.copy(quietly)
    copy = work.partial / "a.gguf"
    content = bytearray(copy.read_bytes())
    content[1000] ^= 1
    copy.write_bytes(content)
    with pytest.raises(StorageFailed, match="differs from its source"):
        work.verify(quietly)
    assert not copy.exists()
    assert (archived(model, nas) / "a.gguf").read_bytes() == Path(model.path).read_bytes()


def test_too_small_a_disk_is_refused_before_anything_is_copied(
    model: Model, nas: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(nas)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(NoSpace, match="must be copied"):
        Archiving(model, nas)
    assert list(nas.iterdir()) == []


def test_full_disk_leaves_a_copy_the_next_attempt_resumes(
    model: Model, nas: Path, limit_on_files: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    limit_on_files(300_000)
    work = Archiving(model, nas)
    with pytest.raises(StorageFailed, match="File too large; the next attempt continues from here"):
        work.copy(quietly)
    limit_on_files(resource.RLIM_INFINITY)
    assert (work.partial / "a.gguf.incomplete").stat().st_size == 300_000
    written: list[int] = []
    write = copying._Writer.write

    def counted(self: copying._Writer, block: memoryview) -> None:
        before = self._copy.tell()
        write(self, block)
        written.append(self._copy.tell() - before)

    monkeypatch.setattr(copying._Writer, "write", counted)
    archived(model, nas)
    assert sum(written) == Path(model.path).stat().st_size - 300_000
    assert (nas / "a/a.gguf").read_bytes() == Path(model.path).read_bytes()


def test_files_that_were_copied_are_not_copied_again(
    tmp_path: Path, nas: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = Registry().add(tiny_safetensors(tmp_path / "m", files={"tokenizer.json": "{}"}))
    Archiving(model, nas).copy(quietly)
    monkeypatch.setattr(copying, "_copy_file", None)
    archived(model, nas)


def test_killed_archiving_leaves_no_archive_and_is_resumed(tmp_path: Path, nas: Path) -> None:
    file = tiny_gguf(tmp_path / "big.gguf")
    os.truncate(file, 50_000_000)
    model = Registry().add(file)
    script = f"""
import os, signal
from pathlib import Path
from mmd.registry.archive import Archiving
from mmd.registry.store import Registry
work = Archiving(Registry().get("big"), Path({str(nas)!r}))
work.copy(lambda done: os.kill(os.getpid(), signal.SIGKILL) if done > 20_000_000 else None)
"""
    done = subprocess.run([sys.executable, "-c", script], check=False, timeout=50)
    assert done.returncode == -signal.SIGKILL
    assert [path.name for path in nas.iterdir()] == [".big.mmd-incomplete"]
    assert (archived(model, nas) / "big.gguf").stat().st_size == 50_000_000
    assert [path.name for path in nas.iterdir()] == ["big"]


def test_restore_that_fails_registers_nothing(model: Model, nas: Path, limit_on_files: Callable[[int], None]) -> None:
    archive = archived(model, nas)
    Registry().remove("a")
    limit_on_files(300_000)
    with pytest.raises(StorageFailed):
        restored(archive)
    limit_on_files(resource.RLIM_INFINITY)
    assert Registry().all() == ()
    assert not (paths.models_dir() / "a").exists()
    assert restored(archive).id == "a"


def test_damaged_archive_is_not_restored(model: Model, nas: Path) -> None:
    archive = archived(model, nas)
    Registry().remove("a")
    with (archive / "a.gguf").open("r+b") as file:
        file.seek(5000)
        file.write(b"\xff" * 8)
    with pytest.raises(BadModelFile, match="is damaged"):
        restored(archive)
    assert Registry().all() == ()


def test_id_that_is_taken_is_refused(model: Model, nas: Path) -> None:
    archive = archived(model, nas)
    with pytest.raises(WrongUsage, match="is registered already"):
        Restoring(archive, Registry())
    work_of_another = Registry().remove("a")
    work = Restoring(archive, Registry())
    work.copy(quietly)
    Registry().put(work_of_another)
    with pytest.raises(WrongUsage, match="belongs to"):
        work.finish()


@pytest.mark.parametrize(
    ("file", "old", "new", "said"),
    [
        ("mmd-manifest.json", '"a.gguf"', '"../../a.gguf"', "leads out of the archive"),
        ("mmd-manifest.json", '"a.gguf"', '"/etc/passwd"', "leads out of the archive"),
        ("mmd-manifest.json", '"a.gguf"', '"b.gguf"', "the manifest does not list a.gguf"),
        ("mmd-manifest.json", '"sha256": "', '"sha256": "x', "is not a sha256"),
        ("mmd-manifest.json", "{", "", "not a complete archive|is damaged"),
        ("mmd-model.toml", 'path = "a.gguf"', 'path = "../a.gguf"', "leads out of the archive"),
        ("mmd-model.toml", "[models.a]", '[models."../a"]', "is not a valid model id|is missing"),
        ("mmd-manifest.json", '"a.gguf"', '"a\\u0000.gguf"', "is not a file name"),
        ("mmd-manifest.json", '"a.gguf"', '"a\\ud800.gguf"', "is not a complete archive"),
        ("mmd-manifest.json", '"a.gguf"', '"./a.gguf"', "is not a file name"),
        ("mmd-manifest.json", '"a.gguf"', '"."', "the manifest does not list a.gguf"),
        ("mmd-manifest.json", '"files": {', '"files": [], "more": {', "not a complete archive"),
        ("mmd-model.toml", "hf:Org/A", "\\u001b[2J", "has unprintable characters"),
        ("mmd-model.toml", "[models.a]", "a = " + "[" * 5000, "not a complete archive"),
        ("mmd-model.toml", "source", "sauce", "is not known|is missing"),
    ],
)
def test_archive_that_lies_is_refused(model: Model, nas: Path, file: str, old: str, new: str, said: str) -> None:
    archive = archived(model, nas)
    Registry().remove("a")
    text = (archive / file).read_text()
    assert old in text
    (archive / file).write_text(text.replace(old, new, 1))
    with pytest.raises(MmdError, match=said) as caught:
        Restoring(archive, Registry())
    assert "\n" not in caught.value.message + caught.value.hint


def test_archive_that_was_added_can_be_archived_again(tmp_path: Path, nas: Path) -> None:
    """The manifest in it was taken for a file of the model, and the new one beside it then for a damaged file."""
    first = archived(Registry().add(tiny_safetensors(tmp_path / "m")), nas)
    Registry().remove("m")
    again = Registry().add(first, id="again")
    archive = archived(again, nas)
    Registry().remove("again")
    assert restored(archive).id == "again"


def test_model_is_archived_into_its_own_folder(tmp_path: Path) -> None:
    folder = tiny_safetensors(tmp_path / "m")
    model = Registry().add(folder)
    archive = archived(model, folder)
    disposal_of(model, []).carry_out()
    assert [path.name for path in folder.iterdir()] == ["m"]
    Registry().remove("m")
    assert restored(archive).facts == model.facts


@pytest.mark.parametrize("linked", ["", "a.gguf", "a.gguf.incomplete"])
def test_link_that_waits_in_a_shared_folder_is_not_followed(
    model: Model, nas: Path, tmp_path: Path, linked: str
) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "a.gguf").write_bytes(Path(model.path).read_bytes())
    partial = nas / ".a.mmd-incomplete"
    if linked:
        partial.mkdir()
        (partial / linked).symlink_to(victim / "a.gguf")
    else:
        partial.symlink_to(victim)
    manifest.write(model, {model.path: sha256(Path(model.path).read_bytes()).hexdigest()})
    if linked == "a.gguf":
        assert not (archived(model, nas) / "a.gguf").is_symlink()
    else:
        with pytest.raises(StorageFailed, match="cannot be written"):
            archived(model, nas)
    assert (victim / "a.gguf").read_bytes() == Path(model.path).read_bytes()
    assert [path.name for path in victim.iterdir()] == ["a.gguf"]


def test_two_that_fill_the_same_folder_are_told_apart(model: Model, nas: Path) -> None:
    first, second = Archiving(model, nas), Archiving(model, nas)

    def meanwhile(_: int) -> None:
        with pytest.raises(WrongUsage, match="another mmd is filling"):
            second.copy(quietly)

    first.copy(meanwhile)
    first.verify(quietly)
    assert first.finish() == nas / "a"


def test_folder_without_an_archive_is_reported(tmp_path: Path) -> None:
    with pytest.raises(WrongUsage, match="is not an archive") as caught:
        Restoring(tmp_path, Registry())
    assert caught.value.hint.startswith("mmd add ")


# --- the verbs


def test_archive_and_restore_by_hand(model: Model, nas: Path) -> None:
    done = mmd("archive", "a", str(nas))
    assert (done.returncode, done.stdout) == (0, f"{nas / 'a'}\n"), done.stderr
    assert "mmd remove a --files" in done.stderr
    refused(mmd("archive", "a", str(nas)), 2)
    Registry().remove("a")
    done = mmd("restore", str(nas / "a"))
    assert (done.returncode, done.stdout) == (0, "a\n"), done.stderr
    refused(mmd("restore", str(nas / "a")), 2)
