"""Changes to mmd.toml leave everything else in it as the user wrote it."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
import tomlkit
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mmd.errors import MmdError, SettingsNotEdited, StorageFailed, WrongUsage
from mmd.paths import config_file
from mmd.settings_edit import edit_settings, remove_setup, set_for_models

IDS = st.sampled_from(["a", "b", "qwen2.5-7b", "x"])
MODES = st.sampled_from(["disabled", "sleep", "active"])


@pytest.fixture
def file(own_home: Path) -> Path:
    config_file().parent.mkdir(parents=True)
    return config_file()


@st.composite
def written_by_people(draw: st.DrawFn) -> str:
    """An mmd.toml with comments, odd spacing, and every way of TOML to write a table."""
    gateway = ["[gateway]  # ours", 'listen="127.0.0.1:1"', ""]
    engines = ["# where they are", "[engines]", "", 'llama-server = "/opt/llama-server" # b11434']
    tables = [
        ["[models.a]", "context =  4096 # enough", "# more to come"],
        ["[models.b]  # the good one", "", 'startup = "sleep"   # since May'],
        ['[models."qwen2.5-7b"]', "# quoted", 'arguments = [ "--seed", "1", ] # a list'],
    ]
    style = draw(st.sampled_from(["tables", "inline", "dotted"]))
    if style == "tables":
        blocks = draw(st.permutations([gateway, engines, *tables]))[: draw(st.integers(0, 5))]
        lines = [line for block in blocks for line in [*block, *draw(st.sampled_from([[], [""], ["", "# ---"]]))]]
    elif style == "inline":
        lines = ["[models] # all", "a = { context = 4096 } # enough", 'b={startup="sleep"}', *gateway]
    else:
        lines = ["models.a.context = 4096 # enough", 'models.b.startup = "sleep" # since May', *gateway]
    end = draw(st.sampled_from(["\n", "\r\n"]))
    return draw(st.sampled_from(["", "# mine" + end])) + end.join(lines) + draw(st.sampled_from(["", end]))


@given(written_by_people(), st.dictionaries(IDS, MODES, max_size=3))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
def test_only_what_was_asked_for_changes(file: Path, before: str, wanted: dict[str, str]) -> None:
    file.write_bytes(before.encode())
    expected = tomllib.loads(before)
    for model_id, mode in wanted.items():
        if expected.get("models", {}).get(model_id, {}).get("startup", "disabled") != mode:
            expected.setdefault("models", {}).setdefault(model_id, {})["startup"] = mode
    set_for_models("startup", wanted)
    after = file.read_bytes().decode()
    assert tomllib.loads(after) == expected
    for comment in _comments(before):
        assert comment in after
    if expected == tomllib.loads(before):
        assert after == before


@given(written_by_people(), IDS, MODES, MODES)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=30)
def test_a_change_undone_and_done_again_is_the_same_file(
    file: Path, before: str, model_id: str, there: str, back: str
) -> None:
    file.write_bytes(before.encode())
    set_for_models("startup", {model_id: there})
    once = file.read_bytes()
    set_for_models("startup", {model_id: back})
    set_for_models("startup", {model_id: there})
    if there != "disabled":  # not mentioned unless it was set
        assert file.read_bytes() == once


def test_what_it_looks_like(file: Path) -> None:
    file.write_text('# mine\n[models.b] # good\nstartup = "active" # since May\n')
    set_for_models("startup", {"b": "disabled", "qwen2.5-7b": "active"})
    assert file.read_text() == (
        '# mine\n[models.b] # good\nstartup = "disabled" # since May\n\n[models."qwen2.5-7b"]\nstartup = "active"\n'
    )


def test_comments_in_a_table_outlive_its_startup(file: Path) -> None:
    """An otherwise empty table was removed together with the user's comments in it."""
    file.write_text('[models.b]\n# only while the fan is quiet\nstartup = "active"\n')
    set_for_models("startup", {"b": "disabled"})
    assert "# only while the fan is quiet" in file.read_text()


def test_first_change_makes_the_file(own_home: Path) -> None:
    set_for_models("startup", {"a": "active"})
    assert config_file().read_text() == '[models.a]\nstartup = "active"\n'
    assert config_file().stat().st_mode & 0o777 == 0o600


def test_no_change_makes_no_file(own_home: Path) -> None:
    set_for_models("startup", {"a": "disabled"})
    set_for_models("startup", {})
    assert not config_file().exists()


def test_no_change_leaves_the_file_alone(file: Path) -> None:
    file.write_text('[models.a]\nstartup = "active"\n')
    before = file.stat()
    set_for_models("startup", {"a": "active", "b": "disabled"})
    assert file.stat() == before


def test_link_into_a_folder_of_dotfiles_stays_one(file: Path, tmp_path: Path) -> None:
    real = tmp_path / "dotfiles/mmd.toml"
    real.parent.mkdir()
    real.write_text("# mine\n")
    file.symlink_to(real)
    set_for_models("startup", {"a": "active"})
    assert file.is_symlink()
    assert real.read_text() == '# mine\n\n[models.a]\nstartup = "active"\n'
    assert [path.name for path in real.parent.iterdir()] == ["mmd.toml"]


@pytest.mark.parametrize("mode", [0o644, 0o600, 0o664])
def test_permissions_stay(file: Path, mode: int) -> None:
    file.write_text("")
    file.chmod(mode)
    set_for_models("startup", {"a": "active"})
    assert file.stat().st_mode & 0o777 == mode


@pytest.mark.parametrize(
    "text", ["[models.a\n", "[models.a]\nctx = 1\n", "\xff", "models = 3\n"], ids=["syntax", "key", "bytes", "kind"]
)
def test_damaged_file_is_told_and_left_alone(file: Path, text: str) -> None:
    file.write_bytes(text.encode("latin-1"))
    with pytest.raises(WrongUsage) as refusal:
        set_for_models("startup", {"a": "active"})
    assert str(file) in refusal.value.message
    assert file.read_bytes() == text.encode("latin-1")


def test_result_that_says_something_else_is_not_written(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """tomlkit used to put a table into another one."""
    file.write_text('models.a.startup = "sleep"\n')
    monkeypatch.setattr(tomlkit, "dumps", lambda _: "[models.b.a]\n")
    with pytest.raises(MmdError, match="cannot edit") as refusal:
        set_for_models("startup", {"a": "active"})
    assert 'startup = "active"' in refusal.value.hint
    assert file.read_text() == 'models.a.startup = "sleep"\n'


def test_full_disk_leaves_the_old_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    file.write_text("# mine\n")
    monkeypatch.setattr("mmd.atomic.os.fsync", full)
    with pytest.raises(StorageFailed, match="No space left"):
        set_for_models("startup", {"a": "active"})
    assert file.read_text() == "# mine\n"
    assert [path.name for path in file.parent.iterdir()] == ["mmd.toml"]


# --- other tables


def test_new_setup_is_a_table_of_its_own(file: Path) -> None:
    file.write_text('[models.b] # good\nstartup = "sleep"\n')
    edit_settings(
        {("setups", "rag", "models"): ["a", "b"], ("setups", "rag", "note"): "x", ("boot", "restore_last"): True}
    )
    assert file.read_text() == (
        '[models.b] # good\nstartup = "sleep"\n\n[setups.rag]\nmodels = ["a", "b"]\nnote = "x"\n\n'
        "[boot]\nrestore_last = true\n"
    )
    edit_settings({("setups", "rag", "models"): ["a"], ("boot", "restore_last"): False})
    assert tomllib.loads(file.read_text()) == {
        "models": {"b": {"startup": "sleep"}},
        "setups": {"rag": {"models": ["a"], "note": "x"}},
        "boot": {"restore_last": False},
    }


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('[setups.rag]\nmodels = ["a"]\n', ""),
        (
            '# mine\n[setups.rag] # old\nmodels = [\n  "a", # first\n]\n\n# for search\n[setups.b]\nmodels = ["b"]\n',
            '# mine\n\n# for search\n[setups.b]\nmodels = ["b"]\n',
        ),
        (
            '[setups.b]\nmodels = ["b"]\n\n[ setups . "rag" ]\nmodels = ["a"]\n\n[boot]\nrestore_last = true\n',
            '[setups.b]\nmodels = ["b"]\n\n[boot]\nrestore_last = true\n',
        ),
    ],
)
def test_removed_setup_leaves_the_rest(file: Path, before: str, after: str) -> None:
    file.write_text(before)
    remove_setup("rag")
    assert file.read_text() == after


@pytest.mark.parametrize("text", ['[setups]\nrag = { models = ["a"] }\n', 'setups.rag.models = ["a"]\n'])
def test_setup_written_in_another_way_is_not_removed(file: Path, text: str) -> None:
    file.write_text(text)
    with pytest.raises(SettingsNotEdited) as refusal:
        remove_setup("rag")
    assert 'remove [setups."rag"]' in refusal.value.hint
    assert file.read_text() == text


def _comments(text: str) -> list[str]:
    return ["#" + line.partition("#")[2].rstrip("\r") for line in text.split("\n") if "#" in line]
