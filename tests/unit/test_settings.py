"""mmd.toml: the defaults, the allowed values, and the messages about wrong ones."""

from __future__ import annotations

import json
from dataclasses import MISSING
from pathlib import Path

import pytest

from mmd.errors import MmdError, StorageFailed, WrongUsage
from mmd.paths import config_file
from mmd.settings import ModelTable, Setting, Settings, SetupTable, all_settings, read_settings


@pytest.fixture
def file(own_home: Path) -> Path:
    config_file().parent.mkdir(parents=True)
    return config_file()


def refused(file: Path, text: str) -> MmdError:
    file.write_text(text, "utf-8")
    with pytest.raises(MmdError) as caught:
        read_settings()
    assert str(file) in caught.value.message
    assert str(file) in caught.value.hint
    assert "\n" not in caught.value.message
    return caught.value


def test_without_a_file_the_defaults_hold() -> None:
    settings = read_settings()
    assert settings.gateway.listen == "127.0.0.1:8000"
    assert settings.engines.llama_server is None
    assert settings == Settings()


def test_empty_file_says_nothing(file: Path) -> None:
    file.write_text("")
    assert read_settings() == read_settings(Path("/nonexistent/mmd.toml"))


def test_what_the_file_says_holds(file: Path) -> None:
    file.write_text(
        '[gateway]\nlisten = "0.0.0.0:9000"\n[engines]\nllama-server = "/opt/llama-server"\n'
        '[models.a]\ncontext = 8192\narguments = ["--seed", "1"]\n[models."b.c"]\nengine = "embedded"\n'
    )
    settings = read_settings()
    assert settings.gateway.listen == "0.0.0.0:9000"
    assert settings.engines.place("llama-server") == settings.engines.llama_server == "/opt/llama-server"
    assert settings.engines.place("embedded") is None
    assert settings.gateway.max_wait_seconds == 60, "what is not said keeps its default"
    assert settings.model("a").context == 8192
    assert settings.model("a").arguments == ("--seed", "1")
    assert settings.model("b.c").engine == "embedded"


def test_quoted_key_without_a_table_counts(file: Path) -> None:
    file.write_text('"gateway.listen" = "0.0.0.0:9000"\n[gateway]\ndrain_seconds = 7\n')
    gateway = read_settings().gateway
    assert (gateway.listen, gateway.drain_seconds) == ("0.0.0.0:9000", 7)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('safe_maximum = "15.5G"', "15.5G"),
        ('safe_maximum = { 0 = "15.5 GiB", ram = "32G" }', {"0": "15.5 GiB", "ram": "32G"}),
        ('[gpu.safe_maximum]\nGPU-8a3b1c2d = "15.5G"', {"GPU-8a3b1c2d": "15.5G"}),
    ],
)
def test_safe_maximum_is_a_size_or_a_table(file: Path, text: str, value: object) -> None:
    file.write_text(f"[gpu]\n{text}\n")
    assert read_settings().gpu.safe_maximum == value
    assert read_settings().gpu.residency == "many"


def test_model_without_a_table_has_the_defaults() -> None:
    assert Settings().model("a") == ModelTable()


def test_a_file_can_be_named(tmp_path: Path) -> None:
    other = tmp_path / "other.toml"
    other.write_text("[gateway]\ndrain_seconds = 5\n")
    assert read_settings(other).gateway.drain_seconds == 5


@pytest.mark.parametrize("value", ['"[::1]:8000"', '"localhost:80"', '"0.0.0.0:65535"'])
def test_listen_is_accepted(file: Path, value: str) -> None:
    file.write_text(f"[gateway]\nlisten = {value}\n")
    assert read_settings().gateway.listen == value.strip('"')


@pytest.mark.parametrize(
    ("table", "key", "value"),
    [
        *(("gateway", "listen", value) for value in ("8000", '"8000"', '":8000"', '"host:"', '"host:65536"', '"h:-1"')),
        *(("gateway", "listen", value) for value in ('"host:x"', "true", '["127.0.0.1:8000"]', '"host:²"')),
        *(("gateway", "drain_seconds", value) for value in ("-1", '"60"', "1.5", "true", "[]", "{ a = 1 }")),
        *(("engines", "llama-server", value) for value in ('"llama-server"', '"~/llama-server"', "1", '""')),
        *(("models.a", "engine", value) for value in ("1", "true", "[]")),
        *(("models.a", "aliases", value) for value in ('"gpt-4o"', "[1]", '[""]', '[" a"]', '["-a"]', '["a\\nb"]')),
        *(("models.a", "context", value) for value in ("0", "-1", '"8k"', "1.5", "true")),
        *(("models.a", "ready_seconds", value) for value in ("-1", '"60"', "true")),
        *(("models.a", "idle_sleep_seconds", value) for value in ("-1", '"5m"', "true")),
        *(("models.a", "pinned", value) for value in ("1", '"yes"')),
        *(("setups.a", "models", value) for value in ('"m"', "[]", "[1]", '["m", "m"]', '["-m"]', "true")),
        *(("setups.a", "startup", value) for value in ("true", '"sleep"')),
        *(("setups.a", "expose", value) for value in ("true", '"m"', "[1]")),
        *(("setups.a", "note", value) for value in ("1", "[]")),
        *(("boot", "restore_last", value) for value in ("1", '"yes"')),
        *(("gpu", "residency", value) for value in ('"two"', "1", "true", "[]")),
        *(("gpu", "safe_maximum", value) for value in ('"15"', "15", '"0.5G"', '""', "[]", "true", '"-4G"')),
        *(("gpu", "safe_maximum", value) for value in ("{}", '{ 0 = "1M" }', "{ 0 = 4 }", '{ first = "4G" }')),
        *(("models.a", "arguments", value) for value in ('"--seed 1"', "[1]", "[[]]", "{}")),
    ],
)
def test_wrong_value_names_the_key_and_the_value(file: Path, table: str, key: str, value: str) -> None:
    error = refused(file, f"[{table}]\n{key} = {value}\n")
    assert isinstance(error, WrongUsage)
    assert f"{table}.{key} must be" in error.message


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("[gateway]\nport = 8000\n", "gateway.port"),
        ('[gatway]\nlisten = "a:1"\n', "gatway.listen"),
        ("colour = true\n", "colour"),
        ("[models.a]\nctx = 1\n", "models.a.ctx"),
        ('[setups.a]\nmodels = ["m"]\nmodel = "m"\n', "setups.a.model"),
        ("[boot]\nlast = true\n", "boot.last"),
    ],
)
def test_unknown_key_is_named_with_those_there_are(file: Path, text: str, key: str) -> None:
    error = refused(file, text)
    assert f"there is no setting {key}; there are" in error.message


@pytest.mark.parametrize("text", ["models = 3\n", "[[models]]\nid = 1\n", "[models]\na = 3\n"])
def test_models_that_are_no_tables(file: Path, text: str) -> None:
    assert "[models.ID]" in refused(file, text).message


@pytest.mark.parametrize("text", ["setups = 3\n", "[[setups]]\nmodels = []\n", "[setups]\na = 3\n"])
def test_setups_that_are_no_tables(file: Path, text: str) -> None:
    assert "[setups.NAME]" in refused(file, text).message


def test_setup_is_read_with_its_defaults(file: Path) -> None:
    file.write_text(
        '[setups.rag]\nmodels = ["chat", "embed"]\n[setups."rag-1.5"]\nmodels = ["qwen2.5-7b"]\nnote = "search"\n'
        'expose = ["qwen2.5-7b"]\nstartup = "active"\n[boot]\nrestore_last = true\n'
    )
    settings = read_settings()
    assert settings.setups == {
        "rag": SetupTable(models=("chat", "embed")),
        "rag-1.5": SetupTable(models=("qwen2.5-7b",), note="search", expose=("qwen2.5-7b",), startup="active"),
    }
    assert settings.boot.restore_last


def test_setup_without_models_is_refused(file: Path) -> None:
    assert "setups.rag has no models, which must be" in refused(file, '[setups.rag]\nnote = "x"\n').message


def test_dot_in_a_setups_name_must_be_quoted(file: Path) -> None:
    error = refused(file, '[setups.rag-1.5]\nmodels = ["m"]\n')
    assert 'must be quoted: [setups."rag-1.5"]' in error.message


@pytest.mark.parametrize("name", ["Rag", "a b", "-rag", "a@b", "a/b", "x" * 65])
def test_name_that_a_setup_cannot_have(file: Path, name: str) -> None:
    assert "is not a setup's name" in refused(file, f'[setups."{name}"]\nmodels = ["m"]\n').message


def test_setup_named_like_an_alias_is_refused(file: Path) -> None:
    error = refused(file, '[models.a]\naliases = ["rag"]\n[setups.rag]\nmodels = ["m"]\n')
    assert "rag is both a setup and an alias of a" in error.message


def test_setup_exposes_only_its_own_models(file: Path) -> None:
    error = refused(file, '[setups.rag]\nmodels = ["m"]\nexpose = ["other"]\n')
    assert "setups.rag.expose names other, which is not among its models" in error.message


def test_damaged_toml_names_the_line(file: Path) -> None:
    assert "line 3" in refused(file, '[gateway]\nlisten = "a:1"\ndrain_seconds = = 1\n').message


def test_duplicate_table_is_damaged_toml(file: Path) -> None:
    assert "is not TOML" in refused(file, "[gateway]\n[gateway]\n").message


def test_binary_file_is_refused(file: Path) -> None:
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(WrongUsage, match="is not TOML"):
        read_settings()


def test_file_that_cannot_be_read(file: Path) -> None:
    file.mkdir()  # root may read every other file
    with pytest.raises(StorageFailed, match="cannot be read"):
        read_settings()


EVERY = [(table, setting) for table, settings in all_settings().items() for setting in settings]


@pytest.mark.parametrize(("table", "setting"), EVERY, ids=[f"{table}.{one.key}" for table, one in EVERY])
def test_every_setting_is_described(table: str, setting: Setting) -> None:
    assert setting.help and setting.kind


@pytest.mark.parametrize(("table", "setting"), EVERY, ids=[f"{table}.{one.key}" for table, one in EVERY])
def test_every_default_is_accepted_or_means_unset(file: Path, table: str, setting: Setting) -> None:
    if setting.default is None or setting.default is MISSING:
        return
    default = list(setting.default) if isinstance(setting.default, tuple) else setting.default
    name = f"{table}.a" if table in ("models", "setups") else table
    required = 'models = ["m"]\n' if table == "setups" else ""
    file.write_text(f"[{name}]\n{required}{setting.key} = {json.dumps(default)}\n")
    record = getattr(read_settings(), table)
    if table == "setups":
        assert record == {"a": SetupTable(models=("m",))}
    else:
        record = record["a"] if table == "models" else record
        assert record == type(record)()


def test_alias_of_two_models_names_both(file: Path) -> None:
    error = refused(file, '[models.a]\naliases = ["gpt-4o", "x"]\n[models.b]\naliases = ["y", "gpt-4o"]\n')
    assert "'gpt-4o' is an alias of both a and b" in error.message
