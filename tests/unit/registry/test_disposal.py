"""Deleting a model's files: never one that another model, another name or another tool has a share in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from mmd.errors import StorageFailed
from mmd.paths import models_dir
from mmd.registry.disposal import Disposal, disposal_of
from mmd.registry.record import Model
from mmd.registry.store import Registry
from tests.hub_cache import cached_repository
from tests.tiny_models import sparse_gguf, tiny_safetensors

PROJECTOR = {"general.architecture": "clip", "general.type": "mmproj"}
MODEL = {"llama.embedding_length": 64}


def gguf(path: Path, metadata: Mapping[str, object] = MODEL, *, filled: int = 65536) -> Path:
    """With blocks on the disk, so that deleting it frees some."""
    path.parent.mkdir(parents=True, exist_ok=True)
    sparse_gguf(path, metadata=metadata)
    with path.open("ab") as file:
        file.write(bytes([filled % 251]) * filled)
    return path


def disposal(model: Model) -> Disposal:
    return disposal_of(model, [other for other in Registry().all() if other != model])


def names(paths: list[str]) -> list[str]:
    return sorted(Path(path).name for path in paths)


def goes(one: Disposal) -> list[str]:
    return names([deleted.path for deleted in one.deleted])


def stays(one: Disposal) -> dict[str, str]:
    return {Path(retained.path).name: retained.reason for retained in one.retained}


def test_own_file_goes_and_its_neighbours_stay(tmp_path: Path) -> None:
    model = Registry().add(gguf(tmp_path / "m/a.gguf"))
    (tmp_path / "m/notes").touch()
    planned = disposal(model)
    assert goes(planned) == ["a.gguf"]
    assert planned.frees_bytes >= 65536
    assert Path(model.path).exists(), "nothing happens before it is carried out"
    planned.carry_out()
    assert names([str(path) for path in (tmp_path / "m").iterdir()]) == ["notes"]


def test_safetensors_folder_is_deleted_only_when_empty(tmp_path: Path) -> None:
    sentences = {"modules.json": "[]", "1_Pooling/config.json": "{}", "tokenizer.json": "{}"}
    for name in ("empty", "full"):
        tiny_safetensors(tmp_path / name, {"architectures": ["BertModel"]}, files=sentences)
    (tmp_path / "full/notes.txt").write_text("mine")
    (tmp_path / "full/1_Pooling/mine").touch()
    for name in ("empty", "full"):
        disposal(Registry().add(tmp_path / name)).carry_out()
    assert not (tmp_path / "empty").exists()
    assert sorted(path.name for path in (tmp_path / "full").rglob("*")) == ["1_Pooling", "mine", "notes.txt"]


def test_projector_that_another_model_uses_stays(tmp_path: Path) -> None:
    first, second = gguf(tmp_path / "see-q4_0.gguf"), gguf(tmp_path / "see-q8_0.gguf")
    gguf(tmp_path / "mmproj-see.gguf", PROJECTOR)
    models = [Registry().add(path) for path in (first, second)]
    assert models[0].projector is not None
    planned = disposal(models[0])
    assert (goes(planned), stays(planned)) == (["see-q4_0.gguf"], {"mmproj-see.gguf": f"{models[1].id} needs it"})
    Registry().remove(models[1].id)
    assert stays(disposal(models[0])) == {"mmproj-see.gguf": "another model beside it may need it"}
    second.unlink()
    assert goes(disposal(models[0])) == ["mmproj-see.gguf", "see-q4_0.gguf"]


def test_hard_link_goes_and_frees_nothing(tmp_path: Path) -> None:
    model = Registry().add(gguf(tmp_path / "a.gguf"))
    (tmp_path / "other-tool.gguf").hardlink_to(model.path)
    planned = disposal(model)
    assert planned.frees_bytes == 0
    assert "hard link" in planned.deleted[0].note
    planned.carry_out()
    assert names([str(path) for path in tmp_path.glob("*.gguf")]) == ["other-tool.gguf"]


def test_link_and_what_it_leads_to_stay(tmp_path: Path) -> None:
    target = gguf(tmp_path / "nas/a.gguf")
    (tmp_path / "a.gguf").symlink_to(target)
    planned = disposal(Registry().add(tmp_path / "a.gguf"))
    assert planned.deleted == ()
    assert str(target) in stays(planned)["a.gguf"]


def test_target_of_another_models_link_stays(tmp_path: Path) -> None:
    model = Registry().add(gguf(tmp_path / "a.gguf"))
    (tmp_path / "b.gguf").symlink_to(model.path)
    Registry().add(tmp_path / "b.gguf")
    assert stays(disposal(model)) == {"a.gguf": "b needs it"}


def test_ollamas_blob_stays(tmp_path: Path) -> None:
    (tmp_path / "manifests").mkdir()
    model = Registry().add(gguf(tmp_path / f"blobs/sha256-{'c' * 64}"), id="a")
    assert "ollama rm" in next(iter(stays(disposal(model)).values()))


def test_folder_that_mmd_made_goes_with_its_model(tmp_path: Path) -> None:
    model = Registry().add(gguf(models_dir() / "a/a.gguf"))
    disposal(model).carry_out()
    assert models_dir().is_dir()
    assert not (models_dir() / "a").exists()


def test_file_that_cannot_be_deleted_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a refusal of the system call: root, as whom the tests may run, is refused nothing."""
    model = Registry().add(gguf(tmp_path / "a.gguf"))
    planned = disposal(model)

    def refuse(self: Path, missing_ok: bool = False) -> None:
        raise OSError(30, "Read-only file system", str(self))

    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(StorageFailed, match=r"a\.gguf could not be deleted: Read-only file system"):
        planned.carry_out()


# --- what is another's


@pytest.mark.parametrize(
    "store", [".lmstudio/models/org/a", ".cache/lm-studio/models/org/a", ".cache/llama.cpp", ".local/nomic.ai/GPT4All"]
)
def test_store_of_another_program_is_let_alone(tmp_path: Path, store: str) -> None:
    file = gguf(tmp_path / store / "a.gguf")
    (tmp_path / "models").symlink_to(file.parent)
    for path in (file, tmp_path / "models/a.gguf"):
        assert "a.gguf" in stays(disposal(Registry().add(path)))
        Registry().remove("a")


def test_ollamas_blob_behind_a_link_to_its_folder_stays(tmp_path: Path) -> None:
    (tmp_path / "ollama/manifests").mkdir(parents=True)
    gguf(tmp_path / f"ollama/blobs/sha256-{'c' * 64}")
    (tmp_path / "mine").symlink_to(tmp_path / "ollama/blobs")
    model = Registry().add(tmp_path / f"mine/sha256-{'c' * 64}", id="a")
    assert "ollama rm" in next(iter(stays(disposal(model)).values()))


def test_folder_behind_a_link_stays_with_the_link(tmp_path: Path) -> None:
    """Its files were deleted, and then the link could not be, as it is not a folder."""
    tiny_safetensors(tmp_path / "theirs")
    (tmp_path / "mine").symlink_to(tmp_path / "theirs")
    planned = disposal(Registry().add(tmp_path / "mine"))
    assert planned.deleted == ()
    planned.carry_out()
    assert (tmp_path / "mine/config.json").exists()


def test_work_of_a_person_in_the_folder_stays(tmp_path: Path) -> None:
    mine = {"train.py": "", "results.json": "{}", "README.md": "my work"}
    folder = tiny_safetensors(tmp_path / "work", files=mine | {"tokenizer.json": "{}", "modeling_x.py": ""})
    planned = disposal(Registry().add(folder))
    assert set(stays(planned)) == set(mine)
    planned.carry_out()
    assert {path.name for path in folder.iterdir()} == set(mine)


def test_card_and_licence_go_with_a_folder_that_has_nothing_else(tmp_path: Path) -> None:
    folder = tiny_safetensors(tmp_path / "m", files={"README.md": "card", "LICENSE": "text", "tokenizer.json": "{}"})
    disposal(Registry().add(folder)).carry_out()
    assert not folder.exists()


@pytest.mark.parametrize("name", ["../a.gguf", "notes.txt", "below/a.gguf"])
def test_file_that_only_the_registry_takes_for_the_models_stays(tmp_path: Path, name: str) -> None:
    model = Registry().add(gguf(tmp_path / "m/a.gguf"))
    lie = tmp_path / "m" / name
    lie.parent.mkdir(exist_ok=True)
    lie.touch()
    planned = disposal_of(replace(model, files=(*model.files, str(lie))), [])
    assert goes(planned) == ["a.gguf"]
    assert [retained.path for retained in planned.retained] == [str(lie)]


def test_link_in_mmds_place_for_models_is_followed(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    models_dir().parent.mkdir(parents=True, exist_ok=True)
    models_dir().symlink_to(tmp_path / "disk")
    disposal(Registry().add(gguf(models_dir() / "a/a.gguf"))).carry_out()
    assert models_dir().is_symlink()
    assert list((tmp_path / "disk").iterdir()) == []


def test_added_archive_and_its_manifest_are_kept(tmp_path: Path) -> None:
    folder = tiny_safetensors(tmp_path / "a", files={"mmd-model.toml": "", "mmd-manifest.json": "{}"})
    planned = disposal(Registry().add(folder))
    assert planned.deleted == ()
    assert "mmd-manifest.json" not in stays(planned)


# --- in the Hugging Face cache


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "hub"


def contents(tmp_path: Path, **metadata: Mapping[str, object]) -> dict[str, bytes]:
    return {
        f"{name}.gguf": gguf(tmp_path / "made" / name, of, filled=65536 + number).read_bytes()
        for number, (name, of) in enumerate(metadata.items())
    }


def test_last_model_of_a_repository_takes_all_of_it_along(cache: Path, tmp_path: Path) -> None:
    snapshot = cached_repository(cache, "Org/A", contents(tmp_path, a=MODEL))
    planned = disposal(Registry().add(snapshot / "a.gguf"))
    assert planned.frees_bytes >= 65536
    planned.carry_out()
    assert not list(cache.glob("models--*"))


def test_other_quant_of_a_repository_stays_with_its_projector(cache: Path, tmp_path: Path) -> None:
    files = contents(tmp_path, one=MODEL, two=MODEL)
    files["mmproj-one.gguf"] = gguf(tmp_path / "made/p", PROJECTOR, filled=65600).read_bytes()
    snapshot = cached_repository(cache, "Org/A", files)
    model = Registry().add(snapshot / "one.gguf")
    assert model.projector is not None
    gone = (snapshot / "one.gguf").resolve()
    disposal(model).carry_out()
    assert not gone.exists()
    assert sorted(path.name for path in snapshot.iterdir()) == ["mmproj-one.gguf", "two.gguf"]
    assert all(path.exists() for path in snapshot.iterdir())
    assert (cache / "models--Org--A/refs/main").exists()


def test_blob_that_another_snapshot_has_stays(cache: Path, tmp_path: Path) -> None:
    files = contents(tmp_path, a=MODEL)
    old = cached_repository(cache, "Org/A", files, commit="0" * 40, ref=None)
    new = cached_repository(cache, "Org/A", files, commit="f" * 40)
    planned = disposal(Registry().add(old / "a.gguf"))
    assert planned.frees_bytes == 0
    assert "another snapshot" in planned.deleted[0].note
    planned.carry_out()
    assert not old.exists()
    assert (new / "a.gguf").stat().st_size > 65536


def test_blob_that_another_model_links_to_stays(cache: Path, tmp_path: Path) -> None:
    snapshot = cached_repository(cache, "Org/A", contents(tmp_path, a=MODEL))
    (tmp_path / "mine.gguf").symlink_to((snapshot / "a.gguf").resolve())
    Registry().add(tmp_path / "mine.gguf")
    assert stays(disposal(Registry().add(snapshot / "a.gguf"))) == {"a.gguf": "mine needs it"}


def test_repository_the_library_calls_damaged_is_kept(cache: Path, tmp_path: Path) -> None:
    snapshot = cached_repository(cache, "Org/A", contents(tmp_path, a=MODEL, b=MODEL))
    (snapshot / "b.gguf").resolve().unlink()
    planned = disposal(Registry().add(snapshot / "a.gguf"))
    assert planned.deleted == ()
    assert "reports its cache as damaged" in stays(planned)["a.gguf"]


def test_cache_behind_a_link_is_understood(cache: Path, tmp_path: Path) -> None:
    cached_repository(cache, "Org/A", contents(tmp_path, a=MODEL))
    (tmp_path / "link").symlink_to(cache)
    disposal(Registry().add(tmp_path / f"link/models--Org--A/snapshots/{'a' * 40}/a.gguf")).carry_out()
    assert not list(cache.glob("models--*"))


def test_safetensors_of_the_cache_go_with_what_lies_beside_them(cache: Path, tmp_path: Path) -> None:
    made = tiny_safetensors(tmp_path / "made", files={"tokenizer.json": "{}", "README.md": "card"})
    files = {path.name: path.read_bytes() for path in made.iterdir()}
    disposal(Registry().add(cached_repository(cache, "Org/S", files))).carry_out()
    assert not list(cache.glob("models--*"))


def test_blob_that_was_registered_itself_stays(cache: Path, tmp_path: Path) -> None:
    """It was deleted, and every snapshot that leads to it was left without content."""
    snapshot = cached_repository(cache, "Org/A", contents(tmp_path, a=MODEL))
    model = Registry().add((snapshot / "a.gguf").resolve(), id="blob")
    assert "hf cache rm" in next(iter(stays(disposal(model)).values()))


def test_copy_of_a_repository_under_another_name_stays(cache: Path, tmp_path: Path) -> None:
    """huggingface_hub looks for a snapshot in all repositories, and took whichever had one of this name first."""
    files = contents(tmp_path, a=MODEL)
    names = [f"Org/{number}" for number in range(12)]
    snapshots = {name: cached_repository(cache, name, files) for name in names}
    for name in names[:-1]:
        disposal(Registry().add(snapshots[name] / "a.gguf")).carry_out()
        assert not snapshots[name].exists()
    assert (snapshots[names[-1]] / "a.gguf").exists()


def test_running_download_survives_its_neighbours_deletion(cache: Path, tmp_path: Path) -> None:
    snapshot = cached_repository(cache, "Org/A", contents(tmp_path, a=MODEL))
    partial = cache / "models--Org--A/blobs" / f"{'b' * 64}.mmd.incomplete"
    partial.write_bytes(b"half of it")
    blob = (snapshot / "a.gguf").resolve()
    disposal(Registry().add(snapshot / "a.gguf")).carry_out()
    assert partial.read_bytes() == b"half of it"
    assert not blob.exists()


def test_what_came_after_the_question_is_not_deleted(tmp_path: Path) -> None:
    folder = tiny_safetensors(tmp_path / "m")
    model = Registry().add(folder)
    told = disposal(model)
    disposal(model).require_within(told)
    (folder / "tokenizer.json").touch()
    with pytest.raises(StorageFailed, match=r"nothing was deleted: .*tokenizer\.json was added"):
        disposal(model).require_within(told)
