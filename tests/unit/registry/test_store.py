"""The registry on disk: ids, atomic writes, two writers, damage, a disk that is full."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path

import pytest

from mmd import paths
from mmd.errors import NoSuchModel, RegistryDamaged, StorageFailed, WrongUsage
from mmd.registry import models_json, models_toml
from mmd.registry.store import Registry, missing_files
from tests.tiny_models import sparse_gguf, tiny_gguf, tiny_safetensors

Q8_0, Q4_0 = 8, 2


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


def quantised(path: Path, kind: int, file_type: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return sparse_gguf(path, metadata={"general.file_type": file_type}, tensors={"blk.0.w": ((32, 10), kind)})


def fill(registry: Registry, model_file: Path, count: int) -> None:
    """Put `count` models into models.json, in one write."""
    model = registry.add(model_file)
    models = [replace(model, id=f"model-{number:04}", path=f"/m/{number}.gguf") for number in range(count)]
    registry.file.write_bytes(models_json.render(models))


# --- what goes in comes out


def test_added_model_is_found_by_another_reader(home: Path) -> None:
    model = Registry().add(tiny_gguf(home / "a.gguf"))
    assert model.id == "a"
    assert Registry().get("a") == model
    assert Registry().all() == (model,)
    assert model.added.endswith("Z")


def test_empty_registry_is_not_an_error() -> None:
    assert Registry().load() == {}


def test_licence_is_kept_when_the_file_is_read_again(home: Path) -> None:
    file = tiny_gguf(home / "a.gguf")
    Registry().add(file, licence="cc-by-nc-4.0")
    again = Registry().add(file)
    assert again.licence == "cc-by-nc-4.0"
    assert Registry().get("a") == again
    assert Registry().add(file, licence="mit").licence == "mit"


def test_files_are_private(home: Path) -> None:
    registry = Registry()
    registry.add(tiny_gguf(home / "a.gguf"))
    assert registry.file.stat().st_mode & 0o777 == 0o600
    assert registry.file.parent.stat().st_mode & 0o777 == 0o700
    assert registry.file.read_text().startswith('{"about":"Written by mmd add and mmd remove')


def test_every_field_survives_the_text(home: Path) -> None:
    plain = Registry().add(tiny_gguf(home / "a.gguf", name='A "quoted"\nname, ünïcödé'))
    models = {
        "a.b": replace(plain, id="a.b", projector="/x/mmproj.gguf", files=("/x/1", "/x/2")),
        "a": plain,
    }
    text = models_json.render(models.values())
    assert models_json.parse(text) == models
    assert len(text.splitlines()) == 4  # one for each model
    for model_id, model in models.items():
        assert models_toml.parse(models_toml.render(model)) == {model_id: model}


def test_adding_a_path_again_keeps_the_record_and_updates_facts(home: Path) -> None:
    registry, path = Registry(), home / "a.gguf"
    first = registry.add(tiny_gguf(path, n_layers=1))
    again = registry.add(tiny_gguf(path, n_layers=2))
    assert (again.id, again.added) == (first.id, first.added)
    assert again.facts.weights_bytes > first.facts.weights_bytes
    assert registry.all() == (again,)
    assert registry.add(path, id="a") == again
    with pytest.raises(WrongUsage, match="registered as 'a'"):
        registry.add(path, id="b")


def test_remove_forgets_the_record_and_keeps_the_files(home: Path) -> None:
    registry, path = Registry(), tiny_gguf(home / "a.gguf")
    registry.add(path)
    assert registry.remove("a").id == "a"
    assert registry.load() == {}
    assert path.exists()
    with pytest.raises(NoSuchModel):
        registry.remove("a")


def test_unknown_id_suggests_the_nearest(home: Path) -> None:
    registry = Registry()
    with pytest.raises(NoSuchModel, match="none is registered") as caught:
        registry.get("qwen")
    assert caught.value.hint == "mmd add PATH   # add one"
    registry.add(tiny_gguf(home / "qwen3-8b.gguf"))
    with pytest.raises(NoSuchModel, match="did you mean 'qwen3-8b'") as caught:
        registry.get("Qwen-8b")
    assert caught.value.hint == "mmd show qwen3-8b   # the nearest id"
    with pytest.raises(NoSuchModel) as caught:
        registry.get("xxxxxxx")
    assert caught.value.hint == "mmd list   # shows the registered models"


def test_vanished_file_leaves_the_model_and_is_named(home: Path) -> None:
    path = tiny_gguf(home / "a.gguf")
    Registry().add(path)
    path.unlink()
    assert missing_files(Registry().get("a")) == (str(path),)


# --- ids


@pytest.mark.parametrize(
    ("file_name", "own_name", "expected"),
    [
        ("qwen3-8b-q4_k_m.gguf", "", "qwen3-8b"),
        ("Qwen3-8B-UD-Q4_K_XL.gguf", "", "qwen3-8b"),
        ("Mistral.7B.i1-IQ3_XXS.gguf", "", "mistral.7b"),
        ("llama-2-7b.Q4_0.gguf", "", "llama-2-7b"),
        ("gpt-oss-20b-mxfp4.gguf", "", "gpt-oss-20b"),
        ("Phi 3 (mini)-F16.gguf", "", "phi-3-mini"),
        ("model.gguf", "Tiny Own Name", "tiny-own-name"),
        ("ggml-model-q4_0.gguf", "", "folder"),
        ("x" * 200 + ".gguf", "", "x" * 64),
        ("--..gguf", "Named", "named"),
    ],
)
def test_id_is_what_a_user_would_type(home: Path, file_name: str, own_name: str, expected: str) -> None:
    (home / "folder").mkdir()
    path = sparse_gguf(home / "folder" / file_name, metadata={"general.name": own_name})
    assert Registry().add(path).id == expected


def test_id_of_a_split_model_leaves_the_numbers_out(home: Path) -> None:
    metadata = {"split.count": 2}
    for number in (1, 2):
        path = home / f"Big-Q8_0-{number:05}-of-00002.gguf"
        sparse_gguf(path, metadata={**metadata, "split.no": number - 1})
    assert Registry().add(path).id == "big"


def test_id_of_a_folder_is_the_repositorys_name(home: Path) -> None:
    folder = tiny_safetensors(home / "models--Qwen--Qwen3-8B-AWQ" / "snapshots" / "0f3a")
    assert Registry().add(folder).id == "qwen3-8b-awq"


def test_second_quant_is_named_and_a_third_of_it_numbered(home: Path) -> None:
    registry = Registry()
    assert registry.add(quantised(home / "qwen3-8b-q4_0.gguf", Q4_0, 2)).id == "qwen3-8b"
    assert registry.add(quantised(home / "qwen3-8b-q8_0.gguf", Q8_0, 7)).id == "qwen3-8b-q8_0"
    assert registry.add(quantised(home / "other" / "qwen3-8b-q8_0.gguf", Q8_0, 7)).id == "qwen3-8b-q8_0-2"
    assert registry.add(quantised(home / "third" / "qwen3-8b-q8_0.gguf", Q8_0, 7)).id == "qwen3-8b-q8_0-3"


def test_given_id_is_taken_or_refused_never_changed(home: Path) -> None:
    registry = Registry()
    assert registry.add(tiny_gguf(home / "a.gguf"), id="mine").id == "mine"
    with pytest.raises(WrongUsage, match="belongs to"):
        registry.add(tiny_gguf(home / "b.gguf"), id="mine")
    for wrong in ("", "Mine", "-a", "a/b", "a@b", "a b", "x" * 65, "../a"):
        with pytest.raises(WrongUsage, match="is not a valid model id"):
            registry.add(home / "b.gguf", id=wrong)


@pytest.mark.parametrize("name", ["a\nb.gguf", "a\udcff.gguf"])
def test_path_that_cannot_be_written_down_is_refused(home: Path, name: str) -> None:
    with pytest.raises(WrongUsage, match="has unprintable characters"):
        Registry().add(tiny_gguf(home / "a.gguf").rename(home / name))


# --- damage


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('"source":"file"', '"source":"file', r"malformed: .* \(line 2\)"),
        ('"source":"file"', '"sauce":"file"', r"models\[0\]\.source is missing"),
        ('"source":"file"', '"source":3', r"models\[0\]\.source: expected str, got int"),
        ('"type":"chat"', '"type":"oracle"', r"models\[0\]\.facts\.type: invalid enum value 'oracle'"),
        ('"chat_template":true', '"chat_template":1', r"facts\.chat_template: expected bool"),
        ('"parameters":', '"parameters":true,"x":', r"facts\.parameters: expected int, got bool"),
        ('"parameters":', '"numbers":', r"facts\.parameters is missing"),
        ('"version":1', '"version":2', "version: this mmd reads 1, not 2"),
        ('"version":1,', "", "version is missing"),
        ('[\n{"id":"a"', '[\n{"id":"a"},{"id":"a"', "is missing"),
        ('"layer_count":', '"layer_count":true,"x":', r"\.layer_count: expected int"),
        ('"expert_bytes":', '"expert_bytes":[[1]],"x":', r"\.expert_bytes\[0\]: expected array of length 2"),
        ('"key_width":', '"key_width":1.5,"x":', r"\.key_width: expected int"),
        ('"caches":', '"caches":[3],"x":', r"\.caches\[0\]: expected object"),
        ("\n]}", "x]}", r"malformed: .* \(line 2\)"),
    ],
)
def test_damaged_registry_is_reported_kept_and_never_overwritten(home: Path, old: str, new: str, said: str) -> None:
    registry = Registry()
    registry.add(tiny_gguf(home / "a.gguf"))
    text = registry.file.read_text()
    assert old in text
    damaged = text.replace(old, new)
    registry.file.write_text(damaged)

    with pytest.raises(RegistryDamaged, match=said) as caught:
        registry.load()
    with pytest.raises(RegistryDamaged):
        registry.add(tiny_gguf(home / "b.gguf"))
    with pytest.raises(RegistryDamaged):
        registry.remove("a")
    assert registry.file.read_text() == damaged
    copies = list(registry.file.parent.glob("models.json.damaged-*"))
    assert [copy.read_text() for copy in copies] == [damaged]  # one, however often it was read
    assert copies[0].name in caught.value.message
    assert "\n" not in caught.value.message + caught.value.hint

    registry.file.write_text(text)
    assert registry.get("a")


def test_registry_that_is_no_utf8_is_reported() -> None:
    registry = Registry()
    registry.file.parent.mkdir(parents=True)
    registry.file.write_bytes(b'{"version":1,"models":[{"id":"\xff\xfe"}]}')
    with pytest.raises(RegistryDamaged, match="invalid UTF-8"):
        registry.load()


def test_two_records_with_one_id_are_damage(home: Path) -> None:
    model = Registry().add(tiny_gguf(home / "a.gguf"))
    paths.registry_file().write_bytes(models_json.render([model, model]))
    with pytest.raises(RegistryDamaged, match="two models have the id a"):
        Registry().load()


def test_keys_of_a_newer_version_are_ignored(home: Path) -> None:
    model = Registry().add(tiny_gguf(home / "a.gguf"))
    text = paths.registry_file().read_text()
    paths.registry_file().write_text(text.replace('"source":', '"colour":"red","source":'))
    assert Registry().get("a") == model


def test_read_only_registry_copies_no_damage() -> None:
    registry = Registry(is_read_only=True)
    registry.file.parent.mkdir(parents=True)
    registry.file.write_text("[[[\n")
    with pytest.raises(RegistryDamaged):
        registry.load()
    assert [path.name for path in registry.file.parent.iterdir()] == ["models.json"]


# --- the file of mmd 0.1


@pytest.fixture
def old_file(home: Path) -> Path:
    """A registry as mmd 0.1 wrote it."""
    file = paths.registry_file().with_suffix(".toml")
    file.parent.mkdir(parents=True)
    file.write_bytes((Path(__file__).parents[2] / "golden/models-0.1.toml").read_bytes())
    return file


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_old_file_is_read_once_and_kept(old_file: Path) -> None:
    before = old_file.read_bytes()
    models = Registry().load()
    assert list(models) == ["a", "b", "qwen2.5-7b"]
    assert names(old_file.parent) == ["models.json", "models.lock", "models.toml.old"]
    assert old_file.with_suffix(".toml.old").read_bytes() == before
    assert Registry().load() == models
    assert Registry().remove("a").id == "a"
    assert list(Registry().load()) == ["b", "qwen2.5-7b"]


def test_old_file_has_all_that_it_said(old_file: Path) -> None:
    first, second, third = Registry().all()
    assert (first.projector, first.licence, first.facts.type) == ("/m/mmproj.gguf", "apache-2.0", "vision")
    assert first.facts.layout is not None
    assert first.facts.layout.expert_bytes == ((2, 0), (1, 147456))
    assert first.facts.layout.caches[1].window_tokens == 512
    assert (second.projector, second.licence, second.facts.layout) == (None, "", None)
    assert third.facts.template_marks == ("<tool_call>",)


def test_add_is_the_first_to_read_the_old_file(home: Path, old_file: Path) -> None:
    Registry().add(tiny_gguf(home / "new.gguf"))
    assert list(Registry().load()) == ["a", "b", "new", "qwen2.5-7b"]


def test_read_only_registry_leaves_the_old_file(old_file: Path) -> None:
    assert list(Registry(is_read_only=True).load()) == ["a", "b", "qwen2.5-7b"]
    assert names(old_file.parent) == ["models.toml"]


def test_another_user_reads_the_old_file_only(old_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`sudo -E mmd list` would leave a models.json that only root can read."""
    monkeypatch.setattr(os, "geteuid", lambda: old_file.stat().st_uid + 1)
    assert list(Registry().load()) == ["a", "b", "qwen2.5-7b"]
    assert names(old_file.parent) == ["models.toml"]


def test_old_file_on_a_full_disk_is_still_read(old_file: Path) -> None:
    script = """
        import resource
        from mmd.registry.store import Registry
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
        print(*Registry().load())
    """
    assert run_python(script) == "a b qwen2.5-7b\n"
    assert names(old_file.parent) == ["models.lock", "models.toml"]


@pytest.mark.parametrize("step", ["replace", "unlink"])
def test_kill_while_the_old_file_is_replaced_loses_nothing(old_file: Path, step: str) -> None:
    """Killed at each rename: of the new file, of the old one, and after both."""
    script = f"""
        import os, signal
        from pathlib import Path
        from mmd.registry.store import Registry
        def killed(*_, **__):
            os.kill(os.getpid(), signal.SIGKILL)
        Path.{step} = killed
        Registry().load()
    """
    killed = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], timeout=30, check=False)
    assert killed.returncode == -9
    assert list(Registry().load()) == ["a", "b", "qwen2.5-7b"]


def test_model_that_mmd_0_1_added_meanwhile_is_kept(old_file: Path) -> None:
    """An mmd 0.1 that still runs finds no models.toml, and writes one with the models that it adds."""
    text = old_file.read_text()
    model = Registry().get("b")
    changed = replace(model, licence="changed")
    Registry().remove("b")
    Registry().put(changed)
    Registry().put(replace(model, id="c", path="/m/c.gguf"))
    new = text.replace("models.a", "models.e").replace("/m/a.gguf", "/m/e.gguf")
    old_file.write_text(new.replace('models."qwen2.5-7b"', "models.d").replace("/m/qwen", "/m/c.gguf"))

    for registry in (Registry(is_read_only=True), Registry()):
        models = registry.load()
        assert sorted(models) == ["a", "b", "c", "e", "qwen2.5-7b"]  # not d, whose path is that of c
        assert models["b"] == changed
    assert names(old_file.parent) == ["models.json", "models.lock", "models.toml.old", "models.toml.old.2"]
    Registry().remove("e")
    assert list(Registry().load()) == ["a", "b", "c", "qwen2.5-7b"]


def test_models_json_counts_if_the_old_file_is_damaged_meanwhile(old_file: Path) -> None:
    before = Registry().load()
    old_file.write_text("[[[")
    assert Registry().load() == before
    assert names(old_file.parent) == ["models.json", "models.lock", "models.toml.old", "models.toml.old.2"]


def test_file_that_the_user_kept_is_not_overwritten(old_file: Path) -> None:
    """mmd 0.1 advised: mv models.toml models.toml.old   # start without models."""
    kept = old_file.with_suffix(".toml.old")
    kept.write_text("precious")
    Registry().load()
    assert kept.read_text() == "precious"
    assert names(old_file.parent) == ["models.json", "models.lock", "models.toml.old", "models.toml.old.2"]


def test_old_file_that_cannot_be_read_is_reported(home: Path, old_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = Path.read_bytes

    def refuse(path: Path) -> bytes:
        if path == old_file:
            raise PermissionError(errno.EACCES, "Permission denied")
        return read(path)

    path = tiny_gguf(home / "new.gguf")
    monkeypatch.setattr(Path, "read_bytes", refuse)
    for use in (Registry().load, Registry(is_read_only=True).load, lambda: Registry().add(path)):
        with pytest.raises(StorageFailed, match=r"models\.toml cannot be read: Permission denied"):
            use()
    assert "models.json" not in names(old_file.parent)


def test_old_file_that_cannot_be_renamed_restores_no_model(old_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replace_file = Path.replace

    def refuse(path: Path, target: Path) -> Path:
        if path == old_file:
            raise PermissionError(errno.EPERM, "Operation not permitted")
        return replace_file(path, target)

    monkeypatch.setattr(Path, "replace", refuse)
    assert list(Registry().load()) == ["a", "b", "qwen2.5-7b"]
    with pytest.raises(StorageFailed, match=r"models\.toml cannot be renamed") as caught:
        Registry().remove("a")
    assert "rm " in caught.value.hint
    old_file.unlink()
    Registry().remove("a")
    assert list(Registry().load()) == ["b", "qwen2.5-7b"]


def test_damaged_old_file_is_reported_and_left(old_file: Path) -> None:
    text = old_file.read_text().replace('type = "vision"', 'type = "oracle"')
    old_file.write_text(text)
    for _ in range(2):
        with pytest.raises(RegistryDamaged, match=r"models\.toml .*\[models\.a\] facts\.type: invalid enum") as caught:
            Registry().load()
    assert "models.toml.old" in caught.value.hint
    assert old_file.read_text() == text
    assert not paths.registry_file().exists()
    assert len(list(old_file.parent.glob("models.toml.damaged-*"))) == 1


# --- changes by hand


def test_edit_by_hand_is_seen_at_once(home: Path) -> None:
    registry = Registry()
    registry.add(tiny_gguf(home / "a.gguf"))
    text = registry.file.read_text()
    registry.file.write_text(text.replace('"source":"file"', '"source":"elif"'))  # of the same length
    assert registry.get("a").source == "elif"


def test_thousand_models_are_read_fast(home: Path) -> None:
    registry = Registry()
    fill(registry, tiny_gguf(home / "a.gguf"), 1000)
    seconds = []
    for _ in range(5):
        begin = time.perf_counter()
        assert len(Registry().load()) == 1000
        seconds.append(time.perf_counter() - begin)
    assert min(seconds) < 0.1  # 8 ms where it was measured; the bound is for a busy machine


# --- storage that fails


def test_folder_that_cannot_be_made_is_an_error_with_the_reason(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "a file").write_text("")
    monkeypatch.setenv("XDG_DATA_HOME", str(home / "a file"))
    with pytest.raises(StorageFailed, match="Not a directory") as caught:
        Registry().add(tiny_gguf(home / "a.gguf"))
    assert "df -h" in caught.value.hint
    with pytest.raises(StorageFailed, match="Not a directory"):
        Registry().load()


def test_full_disk_loses_nothing(home: Path) -> None:
    """A limit on the size of files makes every write fail as a full disk does, for root as well."""
    registry = Registry()
    fill(registry, tiny_gguf(home / "a.gguf"), 20)
    before = registry.file.read_bytes()
    tiny_gguf(home / "b.gguf")
    script = f"""
        import resource
        from pathlib import Path
        from mmd.errors import StorageFailed
        from mmd.registry.store import Registry
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        try:
            Registry().add(Path({str(home / "b.gguf")!r}))
        except StorageFailed as error:
            print(error.message)
    """
    done = run_python(script)
    assert "File too large" in done
    assert registry.file.read_bytes() == before
    assert sorted(path.name for path in registry.file.parent.iterdir()) == ["models.json", "models.lock"]


def run_python(script: str) -> str:
    command = [sys.executable, "-c", textwrap.dedent(script)]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout


# --- two at once


def test_two_adds_at_once_both_survive(home: Path) -> None:
    for name in ("a", "b", "c", "d"):
        tiny_gguf(home / f"{name}.gguf")
    script = """
        import sys
        from pathlib import Path
        from mmd.registry.store import Registry
        sys.stdin.readline()  # all start together
        Registry().add(Path(sys.argv[1]))
    """
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(script), str(home / f"{name}.gguf")],
            stdin=subprocess.PIPE,
            text=True,
        )
        for name in ("a", "b", "c", "d")
    ]
    for writer in writers:
        assert writer.stdin
        writer.stdin.write("go\n")
        writer.stdin.flush()
    for writer in writers:
        writer.communicate(timeout=30)
    assert [writer.returncode for writer in writers] == [0, 0, 0, 0]
    assert list(Registry().load()) == ["a", "b", "c", "d"]


def test_lock_that_is_held_is_an_error_in_bounded_time(home: Path) -> None:
    registry = Registry(lock_seconds=0.1)
    registry.add(tiny_gguf(home / "a.gguf"))
    with registry.file.with_suffix(".lock").open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(StorageFailed, match="another mmd") as caught:
            registry.remove("a")
    assert "fuser" in caught.value.hint
    assert registry.remove("a")


def test_one_that_lives_long_reads_the_file_when_it_has_changed(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each launch and each request of a gateway used to read all models again."""
    lasting = Registry()
    assert lasting.all() == ()
    for name in ("a", "b"):
        tiny_gguf(tmp_path / f"{name}.gguf", name=name)
        Registry().add(tmp_path / f"{name}.gguf", id=name)
        assert lasting.get(name).id == name
    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", lambda *_: pytest.fail("read again"))
        assert [model.id for model in lasting.all()] == ["a", "b"]
    lasting.remove("a")
    assert [model.id for model in lasting.all()] == ["b"]
    lasting.file.unlink()
    assert lasting.all() == ()


# --- what a model keeps in memory


def test_layout_survives_the_file(home: Path) -> None:
    path = sparse_gguf(
        home / "a.gguf",
        metadata={
            "general.architecture": "gemma3",
            "gemma3.block_count": 6,
            "gemma3.embedding_length": 64,
            "gemma3.attention.head_count": 2,
            "gemma3.attention.sliding_window": 512,
        },
        tensors={"token_embd.weight": ((64, 100), Q8_0), "blk.2.ffn_up_exps.weight": ((64, 64, 4), Q4_0)},
    )
    model = Registry().add(path)
    layout = model.facts.layout
    assert layout is not None
    assert (layout.expert_bytes, len(layout.caches)) == (((2, 0), (1, 64 * 64 * 4 * 18 // 32), (3, 0)), 2)
    assert Registry().get(model.id) == model
    assert models_toml.parse(models_toml.render(model)) == {model.id: model}


def test_added_again_a_model_of_an_old_registry_has_its_layout(home: Path) -> None:
    path = tiny_gguf(home / "a.gguf")
    model = Registry().add(path)
    old = replace(model, facts=replace(model.facts, layout=None))
    paths.registry_file().write_bytes(models_json.render([old]))
    assert Registry().get("a") == old
    assert Registry().add(path) == model


def test_registry_without_models_has_none(home: Path) -> None:
    registry = Registry()
    assert not registry.has_models()
    model = registry.add(tiny_gguf(home / "a.gguf"))
    assert registry.has_models()
    registry.remove(model.id)
    assert registry.file.exists()
    assert not registry.has_models()
