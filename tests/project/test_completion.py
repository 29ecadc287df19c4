"""The words that TAB offers in a real bash, zsh and fish."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import click
import pytest
from click.shell_completion import BashComplete

from mmd.cli.verbs import mmd
from mmd.gateway.http.api_keys import KeyFile, Purpose
from mmd.paths import registry_file
from mmd.registry.store import Registry
from tests.terminal import PROMPT, Terminal
from tests.tiny_models import sparse_gguf

pytestmark = pytest.mark.tools

COMPLETIONS = Path(__file__).parents[2] / "packaging/completions"
IDS = ["qwen2.5-7b", "tiny"]
VERBS = [name for name, verb in mmd.commands.items() if not verb.hidden]
OFFERED = {
    "mmd ": VERBS,
    "mmd li": ["list"],
    "mmd show ": IDS,
    "mmd show ti": ["tiny"],
    "mmd logs -f ": IDS,
    "mmd show tiny --js": ["--json"],
    "mmd startup tiny ": ["disabled", "sleep", "active"],
    "mmd engine ": ["install", "list", "remove"],
    "mmd engine install v": ["vllm"],
    "mmd key add phone --for ": ["inference", "management"],
    "mmd key remove ": ["laptop"],
    "mmd add shelf/ol": ["shelf/old.gguf"],
    "mmd add shelf/a": ["shelf/a file.gguf"],
    "mmd restore shelf/ol": ["shelf/old.gguf"],
    "mmd show --machine shelf/ol": ["shelf/old.gguf"],
    "mmd estimate shelf/ol": ["shelf/old.gguf"],
    "mmd estimate qw": ["qwen2.5-7b", "qwen2.5-7b-q8_0.gguf"],
    "mmd pull ": [],
}

Offers = Callable[[str], list[str]]
Shell = Callable[[Path], AbstractContextManager[Offers]]


@pytest.fixture(autouse=True)
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two models, a key, and a file that is not registered yet, with mmd on PATH."""
    folder = tmp_path / "shelf"
    folder.mkdir()
    (folder / "old.gguf").touch()
    (folder / "a file.gguf").touch()
    (tmp_path / "home/downloads").mkdir()
    for name in IDS:
        Registry().add(sparse_gguf(tmp_path / f"{name}-q8_0.gguf"), id=name)
    KeyFile().add("laptop", Purpose.INFERENCE)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    monkeypatch.setenv("TERM", "xterm")
    return folder


def required(shell: str) -> str:
    return shutil.which(shell) or pytest.skip(f"there is no {shell} on PATH: sudo apt install {shell}")


@contextmanager
def bash(folder: Path) -> Iterator[Offers]:
    """Let readline insert all words, and run the line."""
    (folder / "rc").write_text(f"""\
source {COMPLETIONS}/mmd.bash
mmd() {{ printf '<%s>' "$@" end; }}
PS1='{PROMPT}'
""")
    words = [required("bash"), "--noprofile", "--rcfile", str(folder / "rc"), "-i"]
    with Terminal(words, os.environ, folder) as terminal:
        yield lambda line: run_with_all_inserted(terminal, line, "\x1b*")


@contextmanager
def zsh(folder: Path) -> Iterator[Offers]:
    with zsh_terminal(folder) as terminal:
        yield lambda line: run_with_all_inserted(terminal, line, "\x18a")


def zsh_terminal(folder: Path) -> Terminal:
    (folder / "site-functions").mkdir()
    shutil.copy(COMPLETIONS / "mmd.zsh", folder / "site-functions/_mmd")
    (folder / ".zshrc").write_text(f"""\
fpath=({folder}/site-functions $fpath)
autoload -Uz compinit && compinit -uD
zle -C all-matches complete-word _generic
bindkey '^Xa' all-matches
zstyle ':completion:all-matches::::' completer _all_matches _complete
zstyle ':completion:all-matches:*' insert true
mmd() {{ printf '<%s>' "$@" end }}
PROMPT='{PROMPT}' RPROMPT=
""")
    return Terminal([required("zsh"), "-i"], os.environ | {"ZDOTDIR": str(folder)}, folder)


@contextmanager
def fish(folder: Path) -> Iterator[Offers]:
    program = required("fish")

    def offers(line: str) -> list[str]:
        script = f"source {COMPLETIONS}/mmd.fish; complete -C '{line}'"
        words = [program, "--no-config", "-c", script]
        done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=True, timeout=50)
        assert not done.stderr
        return [one.partition("\t")[0] for one in done.stdout.splitlines()]

    yield offers


SHELLS = pytest.mark.parametrize("shell", [bash, zsh, fish])


def run_with_all_inserted(terminal: Terminal, line: str, insert_all: str) -> list[str]:
    """Return the words inserted in place of the last one, as the shell passes them to a program."""
    terminal.wait_shown(PROMPT)
    terminal.type(f"{line}{insert_all}\r")
    echo = terminal.wait_shown("<")
    assert "Traceback" not in echo and "mmd: " not in echo
    given = terminal.wait_shown("<end>").rstrip(">").split("><")
    complete = line.split(" ")[1:-1]
    assert given[: len(complete)] == complete, echo
    offered = given[len(complete) :]
    return [] if offered == [line.rpartition(" ")[2]] else offered


@SHELLS
def test_tab_offers_what_fits(shell: Shell, tmp_path: Path) -> None:
    with shell(tmp_path) as offers:
        assert {line: sorted(offers(line)) for line in OFFERED} == {
            line: sorted(words) for line, words in OFFERED.items()
        }
        assert offers("mmd ") == VERBS, "in the order of use"
        (folder,) = offers("mmd add ~/do")
        assert Path(folder).expanduser() == Path.home() / "downloads"


@SHELLS
def test_tab_is_silent_where_the_registry_is_damaged(shell: Shell, tmp_path: Path) -> None:
    registry_file().write_text("[[[\n")
    with shell(tmp_path) as offers:
        assert offers("mmd show ") == []
        assert offers("mmd logs tiny --f") == ["--follow"]


@SHELLS
def test_tab_is_silent_where_mmd_cannot_start(shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "bin/mmd"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\necho Traceback >&2\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    with shell(tmp_path) as offers:
        assert offers("mmd show ") == []


def test_zsh_shows_descriptions(tmp_path: Path) -> None:
    with zsh_terminal(tmp_path) as terminal:
        terminal.wait_shown(PROMPT)
        terminal.type("mmd show \t")
        terminal.wait_shown("-- completion Q8_0")


def test_fish_shows_descriptions_whole(tmp_path: Path) -> None:
    """They ended at their first comma, or after 45 characters."""
    script = f"source {COMPLETIONS}/mmd.fish; complete -C 'mmd show ti'; complete -C 'mmd s'; complete -C 'mmd key '"
    words = [required("fish"), "--no-config", "-c", script]
    done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=50)
    described = dict(line.split("\t") for line in done.stdout.splitlines())
    assert described["tiny"] == "completion Q8_0"
    for verb in ("status", "show"):
        assert described[verb] == mmd.commands[verb].get_short_help_str(200)
    assert not [text for text in described.values() if text.endswith("...")]


def arguments_of(verb: click.Command, words: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], click.Argument]]:
    if isinstance(verb, click.Group):
        for name, below in verb.commands.items():
            if not below.hidden:  # run by units, not typed by users
                yield from arguments_of(below, (*words, name))
    else:
        yield from ((words, parameter) for parameter in verb.params if isinstance(parameter, click.Argument))


@pytest.mark.parametrize(
    "words", [words for words, argument in arguments_of(mmd, ()) if "ID" in (argument.metavar or "")], ids=" ".join
)
def test_every_verb_that_takes_an_id_completes_it(words: tuple[str, ...]) -> None:
    before = ["a-name"] if words == ("setup", "add") else []  # the name of the setup comes first
    offered = BashComplete(mmd, {}, "mmd", "_MMD_COMPLETE").get_completions([*words, *before], "ti")
    assert "tiny" in [one.value for one in offered]
