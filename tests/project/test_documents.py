"""The man pages and the README name what exists, and the generated parts of the man pages match the code."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import get_args, get_type_hints

import huggingface_hub.constants
import pytest

from mmd import errors, journal, paths
from mmd.control.state.last_asked import asked_file
from mmd.control.state.refused_flags import RefusedFlags
from mmd.control.state.swap_events import events_file
from mmd.settings import all_settings, read_settings
from mmd.units.directives import Directive
from tests.documents import (
    DOCUMENTS,
    PAGES,
    README,
    ROOT,
    commands_of,
    example_settings,
    text_of,
    unescaped,
    what_is_wrong,
)

MMD_1, MMD_TOML_5, MMD_UNITS_7 = (ROOT / "packaging/man" / name for name in ("mmd.1", "mmd.toml.5", "mmd-units.7"))

_UNIT = re.compile(r"(?<![\w./-])mmd(?:-[a-z]+)?(?:@[\w.]*)?\.(?:service|socket|slice)\b")
_DIRECTIVE = re.compile(r"\b([A-Z][A-Za-z]+)=")
_PATH = re.compile(r"(?:~/\.(?:config|local|cache)|\$XDG_RUNTIME_DIR)/[\w./@~-]*")
# Advice for drop-ins, directives that mmd does not set for a given reason, and logind's.
_NOT_MMDS = {"MemoryHigh", "CPUWeight", "ExecStop", "InhibitDelayMaxSec"}


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    for name in ("XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    return tmp_path


def names(documents: tuple[Path, ...] = DOCUMENTS) -> list[str]:
    return [document.name for document in documents]


def test_man_pages_are_what_the_code_says() -> None:
    words = [sys.executable, str(ROOT / "packaging/man_pages.py"), "--check"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr


def test_a_page_that_is_behind_is_renewed() -> None:
    page = MMD_1.read_text("utf-8")
    behind = page.replace("\\fB\\-\\-ask\\-again\\fR", "\\fB\\-\\-insist\\fR")
    assert behind != page
    assert man_pages().renewed(behind) == page


@pytest.mark.parametrize(
    "text", [".TH is no request", "'no quote", "a \\ b -- c", "it's ~/x `as is`", "a " * 60 + ".B c"]
)
def test_prose_contains_no_roff_requests(text: str) -> None:
    """A help text with a dot at the beginning of a line used to become a macro, and vanished."""
    for line in man_pages().prose(text):
        assert not line.startswith((".", "'"))
        assert len(line) <= 100
    assert unescaped(" ".join(man_pages().prose(text))).split() == text.replace("`", "").split()


@pytest.mark.tools
@pytest.mark.parametrize("page", PAGES, ids=names(PAGES))
def test_man_page_is_clean(page: Path) -> None:
    mandoc = shutil.which("mandoc")
    if mandoc is None:
        pytest.skip("man pages are checked by mandoc: apt-get install mandoc")
    done = subprocess.run([mandoc, "-Tlint", page], capture_output=True, text=True, timeout=30, check=False)
    assert done.stdout == ""


@pytest.mark.parametrize("document", DOCUMENTS, ids=names())
def test_every_command_exists(document: Path) -> None:
    commands = list(commands_of(document))
    assert commands
    assert [(command.line, wrong) for command in commands if (wrong := what_is_wrong(command.words))] == []


@pytest.mark.parametrize(
    ("words", "wrong"),
    [
        (("activate", "qwen3", "--now"), ""),
        (("engine", "install", "vllm", "[--cpu]"), ""),
        (("activate", "qwen3", "--gently"), "there is no option --gently; "),
        (("key", "forge"), "there is no verb forge"),
    ],
)
def test_a_command_that_does_not_exist_is_found(words: tuple[str, ...], wrong: str) -> None:
    assert what_is_wrong(words) == wrong


def markdown() -> list[Path]:
    return [
        *ROOT.glob("*.md"),
        *(ROOT / "mmd").rglob("*.md"),
        *(ROOT / "contrib").rglob("*.md"),
        ROOT / "tests/README.md",
    ]


@pytest.mark.parametrize("document", [README, ROOT / "CONTRIBUTING.md"], ids=lambda document: document.name)
def test_every_make_target_exists(document: Path) -> None:
    targets = set(re.findall(r"^([\w./-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    named = set(re.findall(r"(?:^    |`)make ([\w./-]+)", document.read_text("utf-8"), re.MULTILINE))
    assert {"demo", "test"} <= named
    assert named <= targets


@pytest.mark.parametrize("document", markdown(), ids=lambda document: str(document.relative_to(ROOT)))
def test_every_link_leads_somewhere(document: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)", document.read_text("utf-8"))
    assert [link for link in links if "://" not in link and not (document.parent / link).exists()] == []


@pytest.mark.parametrize(
    "document",
    [ROOT / "CONTRIBUTING.md", ROOT / "tests/README.md", *(ROOT / "mmd").rglob("*.md")],
    ids=lambda document: str(document.relative_to(ROOT)),
)
def test_every_module_and_folder_exists(document: Path) -> None:
    """A name with a slash is a path from the document, `mmd/` or the root; a bare one may be anywhere in the tree."""
    names = re.findall(r"`([\w.-]+(?:/[\w.-]+)*(?:\.(?:py|md|service|socket)|/))`", document.read_text("utf-8"))
    bases = (document.parent, ROOT / "mmd", ROOT)
    below = {path.name for folder in ("mmd", "tests", "units", "contrib") for path in (ROOT / folder).rglob("*")}
    missing = [
        name for name in names if name.rstrip("/") not in below and not any((base / name).exists() for base in bases)
    ]
    assert missing == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=names())
def test_every_unit_exists(document: Path) -> None:
    transient = re.findall(r'"(mmd-[a-z]+\.service)"', "".join(file.read_text("utf-8") for file in sources()))
    known = {file.name for file in (ROOT / "units").iterdir()} | {*transient}
    named = {re.sub(r"@[^.]+(?=\.service)", "@", unit) for unit in _UNIT.findall(text_of(document))}
    assert named - known - {"mmd-model@.service", "mmd-resident@.service"} == set()


def test_every_static_unit_is_in_the_page() -> None:
    named = set(_UNIT.findall(text_of(MMD_UNITS_7)))
    assert {file.name for file in (ROOT / "units").iterdir()} <= named


def _transient_directives() -> set[str]:
    return {name for kind in Directive.__subclasses__() for name in get_args(get_type_hints(kind)["name"])}


def test_every_directive_exists() -> None:
    static = {found for file in (ROOT / "units").iterdir() for found in directives_in(file.read_text("utf-8"))}
    assert directives_in(text_of(MMD_UNITS_7)) - _transient_directives() - static - _NOT_MMDS == set()


def test_every_directive_of_a_model_is_explained() -> None:
    """Outside the generated examples, the page explains why each of them is set."""
    by_hand = re.sub(r'^\.\\" begin example.*?^\.\\" end$', "", text_of(MMD_UNITS_7), flags=re.MULTILINE | re.DOTALL)
    assert set(directives_in(text_of(MMD_UNITS_7))) - directives_in(by_hand) == {"Description"}


@pytest.mark.parametrize("document", [README, MMD_TOML_5], ids=names((README, MMD_TOML_5)))
def test_every_example_is_accepted_as_settings(document: Path, tmp_path: Path) -> None:
    examples = list(example_settings(document))
    assert examples
    for number, example in enumerate(examples):
        file = tmp_path / f"{number}.toml"
        file.write_text(example, "utf-8")
        read_settings(file)


def test_every_setting_is_in_its_page() -> None:
    entries = set(re.findall(r"^\.TP\n([\w-]+)$", text_of(MMD_TOML_5), re.MULTILINE))
    keys = {setting.key for table in all_settings().values() for setting in table}
    assert keys == entries


@pytest.mark.parametrize("document", DOCUMENTS, ids=names())
def test_every_path_is_one_of_mmds(document: Path, home: Path) -> None:
    """Check those with mmd in their name; ID stands for the id of a model."""
    exact = {
        *(paths.config_file(), paths.keys_file(), paths.registry_file(), paths.gateway_socket(), RefusedFlags().file),
        *(paths.config_dir(), paths.data_dir(), paths.state_dir(), paths.cache_dir(), paths.runtime_dir()),
        *(paths.engines_dir(), paths.manifests_dir(), paths.models_dir(), events_file(), asked_file()),
        *(paths.engine_socket(model_id) for model_id in ("ID", "qwen3")),
    }
    below = (
        *(
            str(paths.engine_socket("ID").parent),
            str(paths.user_unit_dir()),
            *(str(paths.runtime_dir() / name) for name in (".lock", ".ledger")),
        ),
        *(str(paths.tunnel_file("ID").parent), str(paths.tunnels_dir() / "ID")),
    )
    for named in _PATH.findall(text_of(document)):
        path = named.replace("~", str(home), 1) if named.startswith("~") else named
        path = path.replace("$XDG_RUNTIME_DIR", str(home / "run")).rstrip("/.")
        if "mmd" in named:
            assert Path(path) in exact or path.startswith(below), named


def test_every_exit_status_is_in_its_page() -> None:
    section = text_of(MMD_1).partition(".SH EXIT STATUS")[2].partition(".SH")[0]
    said = {int(status) for status in re.findall(r"^\.B (\d+)$", section, re.MULTILINE)}
    assert said == {0, 130} | {outcome.exit_status for outcome in errors._OUTCOMES.values()}


def test_journal_fields_are_those_of_the_code() -> None:
    assert set(re.findall(r"^\.I (MMD_\w+)$", text_of(MMD_UNITS_7), re.MULTILINE)) == {*journal._FIELDS}


def test_every_variable_is_read() -> None:
    """By mmd, or by the hub's library for the hub's; Python's own and pip's are not checked."""
    section = text_of(MMD_1).partition(".SH ENVIRONMENT")[2].partition(".SH")[0]
    named = set(re.findall(r"\b((?:MMD|XDG|HF|DBUS|CUDA)_\w+)\b", section)) - {"CUDA_VISIBLE_DEVICES"}
    read = "".join(file.read_text("utf-8") for file in sources())
    read += Path(huggingface_hub.constants.__file__).read_text("utf-8")
    assert {name for name in named if name not in read} == set()


def man_pages() -> ModuleType:
    """Import the program by its path: `packaging` is also the name of a library."""
    found = importlib.util.spec_from_file_location("man_pages", ROOT / "packaging/man_pages.py")
    assert found is not None and found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


def sources() -> list[Path]:
    return sorted((ROOT / "mmd").rglob("*.py"))


def directives_in(text: str) -> set[str]:
    return set(_DIRECTIVE.findall(text))
