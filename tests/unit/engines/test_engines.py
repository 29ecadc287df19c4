from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mmd import engines
from mmd.engines.llama import embedded, embedded_main
from mmd.engines.llama import find as llama_server
from mmd.engines.llama.engine import EMBEDDED, LLAMA_SERVER
from mmd.errors import EngineMissing, WrongUsage
from tests.fakes.engine import install_fake_llama_server

HELP = """\
----- common params -----

-h,    --help, --usage                  print usage and exit
--version                               show version and build info
-c,    --ctx-size N                     size of the prompt context (default: 0, 0 = loaded from
                                        model), see --predict-none
--cpu-strict <0|1>                      use strict CPU placement (default: 0)
-hf,   -hfr, --hf-repo <user>/<model>[:quant]
                                        Hugging Face model repository
--ui-mcp-proxy, --webui-mcp-proxy, --no-ui-mcp-proxy, --no-webui-mcp-proxy
                                        experimental: whether to enable MCP CORS proxy
"""
NEW_VERSION = "version: 0.6.0-dev (build 0, commit unknown)"
OLD_VERSION = "version: 9611 (02182fc5b)"


@pytest.fixture
def empty_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is the whole PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    return folder


def program(folder: Path, script: str) -> Path:
    path = folder / "llama-server"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def answering(version: str) -> str:
    return f"case $1 in --help) printf '%s\\n' '--host HOST   x' ;; *) echo '{version}' >&2 ;; esac"


def test_parse_flags_finds_every_spelling_and_no_prose() -> None:
    assert llama_server.parse_flags(HELP) == {
        *(
            "-h",
            "--help",
            "--usage",
            "--version",
            "-c",
            "--ctx-size",
            "--cpu-strict",
            "-hf",
            "-hfr",
            "--hf-repo",
        ),
        *("--ui-mcp-proxy", "--webui-mcp-proxy", "--no-ui-mcp-proxy", "--no-webui-mcp-proxy"),
    }


@pytest.mark.parametrize(("said", "version"), [(NEW_VERSION, "0.6.0-dev"), (OLD_VERSION, "9611")])
def test_both_forms_of_version_are_read(empty_path: Path, said: str, version: str) -> None:
    program(empty_path, answering(said))
    found = LLAMA_SERVER.find(None)
    assert found
    assert found.version == version
    assert found.command == (str(empty_path / "llama-server"),)


def test_version_among_driver_noise_is_read(empty_path: Path) -> None:
    noise = f"ggml_cuda_init: found 1 CUDA devices:\n{OLD_VERSION}\nbuilt with cc"
    program(empty_path, answering(noise))
    found = LLAMA_SERVER.find(None)
    assert found
    assert found.version == "9611"


def test_llama_server_not_on_path_is_none(empty_path: Path) -> None:
    assert LLAMA_SERVER.find(None) is None


def test_configured_place_comes_before_path(empty_path: Path, tmp_path: Path) -> None:
    program(empty_path, answering(OLD_VERSION))
    mine = program(tmp_path, answering(NEW_VERSION))
    found = LLAMA_SERVER.find(str(mine))
    assert found
    assert found.command == (str(mine),)


@pytest.mark.parametrize("mode", [None, 0o644])
def test_configured_place_without_a_program_is_an_error(tmp_path: Path, mode: int | None) -> None:
    place = tmp_path / "llama-server"
    if mode is not None:
        place.write_text("text")
        place.chmod(mode)
    with pytest.raises(EngineMissing, match="no such executable file") as caught:
        LLAMA_SERVER.find(str(place))
    assert caught.value.hint == f"ls -l {place}"


def test_missing_library_is_quoted(empty_path: Path) -> None:
    said = "error while loading shared libraries: libcudart.so.12: cannot open shared object file"
    program(empty_path, f"echo first >&2; echo '{said}' >&2; exit 127")
    with pytest.raises(EngineMissing, match="libcudart") as caught:
        LLAMA_SERVER.find(None)
    assert "first" not in caught.value.message
    assert caught.value.hint.endswith("llama-server --version")


def test_file_for_another_processor_is_an_error(empty_path: Path) -> None:
    path = empty_path / "llama-server"
    path.write_bytes(b"\x7fELF and no more")
    path.chmod(0o755)
    with pytest.raises(EngineMissing, match="cannot be run: Exec format error"):
        LLAMA_SERVER.find(None)


def test_other_program_of_that_name_is_an_error(empty_path: Path) -> None:
    program(empty_path, "echo 'hello, I am a wrapper'")
    with pytest.raises(EngineMissing, match="does not answer like llama-server: hello"):
        LLAMA_SERVER.find(None)


def test_program_that_hangs_is_an_error(empty_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llama_server, "PROBE_SECONDS", 0.2)
    program(empty_path, "exec /bin/sleep 60")
    with pytest.raises(EngineMissing, match="did not report its version within"):
        LLAMA_SERVER.find(None)


def test_embedded_is_found_without_importing_it() -> None:
    code = (
        "import sys; from mmd.engines.llama.engine import EMBEDDED; print(EMBEDDED.find(None)); "
        "print('xllamacpp' in sys.modules)"
    )
    shown = subprocess.run((sys.executable, "-c", code), capture_output=True, text=True, timeout=30, check=True)
    found, imported = shown.stdout.splitlines()
    assert found == "None" or "embedded_main.py" in found
    assert imported == "False"


def test_embedded_cannot_be_placed_elsewhere() -> None:
    with pytest.raises(EngineMissing, match="can only be a package"):
        EMBEDDED.find("/opt/llama")


def test_embedded_is_installed_in_the_way_of_mmd_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`pip install 'mmd[embedded]'` was the answer to everybody: for pipx it is some other Python's pip."""
    assert embedded.how_to_install() == f"{sys.executable} -m pip install xllamacpp"
    monkeypatch.setitem(sys.modules, "pip", None)
    assert embedded.how_to_install() == "mmd engine install llama.cpp"
    (tmp_path / "mmd-next").mkdir()
    (tmp_path / "mmd-next/pipx_metadata.json").touch()
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "mmd-next"))
    assert embedded.how_to_install() == "pipx inject mmd-next xllamacpp"


def test_embedded_accepts_what_llama_server_calls_the_same(tmp_path: Path) -> None:
    """Its flags are a part of llama-server's, spelling by spelling."""
    fake = llama_server.probe(LLAMA_SERVER, str(install_fake_llama_server(tmp_path)))
    assert fake.flags >= embedded_main.FLAGS


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--task", "embed"], "invalid argument: --task"),
        (["-c"], 'argument "-c": expected value'),
        (["-c", "many"], 'argument "-c": invalid value: many'),
        (["-fa", "-c"], 'argument "-fa": invalid value: -c'),
    ],
)
def test_embedded_refuses_a_wrong_command_line(argv: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("xllamacpp")
    with pytest.raises(SystemExit) as ended:
        embedded_main.apply(object(), argv)
    assert ended.value.code == 1
    assert said in capsys.readouterr().err


def test_installed_prefers_llama_server(tmp_path: Path) -> None:
    place = install_fake_llama_server(tmp_path)
    assert engines.installed({"llama-server": str(place)})[0].name == "llama-server"


def test_installed_refuses_an_unknown_engine() -> None:
    with pytest.raises(WrongUsage, match="'vlm'") as caught:
        engines.installed({"vlm": "/opt/vlm"})
    assert "llama-server" in caught.value.hint


def test_broken_engine_on_path_is_a_warning_where_another_works(
    empty_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("xllamacpp")
    program(empty_path, "echo broken >&2; exit 1")
    with caplog.at_level(logging.WARNING):
        assert [found.name for found in engines.installed({})] == ["embedded"]
    assert "does not start: broken" in caplog.text


def test_broken_engine_is_an_error_where_it_is_the_only_one(empty_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "ENGINES", (LLAMA_SERVER,))
    program(empty_path, "echo broken >&2; exit 1")
    with pytest.raises(EngineMissing, match="broken"):
        engines.installed({})


def test_broken_engine_is_an_error_where_it_is_configured(tmp_path: Path) -> None:
    with pytest.raises(EngineMissing, match="broken"):
        engines.installed({"llama-server": os.fspath(program(tmp_path, "echo broken >&2; exit 1"))})


def test_embedded_without_openmp_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """A small Debian has no libgomp: the engine died at its first import, after the previous model had gone."""
    pytest.importorskip("xllamacpp")

    def missing(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file: No such file or directory")

    monkeypatch.setattr("ctypes.CDLL", missing)
    with pytest.raises(EngineMissing, match="libgomp") as caught:
        EMBEDDED.find(None)
    assert caught.value.hint == "sudo apt install libgomp1"
