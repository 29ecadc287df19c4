"""The source of the fake vLLM shows the options of its parser, and its parser reads words as argparse does."""

from __future__ import annotations

import ast
import subprocess
from pathlib import Path

import pytest

from tests.fakes.vllm import install_fake_vllm
from tests.vllm_options import UsageError, parse, sections, spellings

LISTS = sections()
LINES = LISTS["engine"] + LISTS["server"]


def test_source_shows_every_option_that_the_parser_takes(tmp_path: Path) -> None:
    package = install_fake_vllm(tmp_path).parent.parent / "lib/python3.11/site-packages/vllm"
    shown: set[str] = set()
    for name in ("engine/arg_utils.py", "entrypoints/launchers/cli_args.py"):
        for node in ast.walk(ast.parse((package / name).read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "add_argument":
                shown |= {str(word.value) for word in node.args if isinstance(word, ast.Constant)}
            elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                shown.add(f"--{node.target.id.replace('_', '-')}")
    taken = {name for name in spellings(LINES) if not name.startswith("--no-")}
    assert shown - {"model_tag"} == taken
    assert len(taken) > 300


def test_environment_tells_its_version_as_pip_does(tmp_path: Path) -> None:
    program = install_fake_vllm(tmp_path, "0.33.1")
    asked = "import importlib.metadata; print(importlib.metadata.version('vllm'))"
    told = [
        subprocess.run(words, capture_output=True, text=True, check=True, timeout=20).stdout.strip()
        for words in ((program.parent / "python", "-I", "-c", asked), (program, "--version"))
    ]
    assert told == ["0.33.1", "0.33.1"]


@pytest.mark.parametrize(
    ("words", "options"),
    [
        ("m --uds x", {"--model": ["m"], "--uds": ["x"]}),
        ("m --max_model_len=auto", {"--model": ["m"], "--max-model-len": ["auto"]}),
        ("m --max-model-len -1", {"--model": ["m"], "--max-model-len": ["-1"]}),
        ("m -O0", {"--model": ["m"], "--optimization-level": ["0"]}),
        ("m -tp 2", {"--model": ["m"], "--tensor-parallel-size": ["2"]}),
        ("m --served-model-name a b --no-enable-sleep-mode", {"--model": ["m"], "--served-model-name": ["a", "b"]}),
    ],
)
def test_words_become_options(words: str, options: dict[str, list[str]]) -> None:
    parsed = parse(words.split(), LINES)
    assert parsed | options == parsed


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("m --task embed", "unrecognized arguments: --task embed"),
        ("m --uds --headless", "argument --uds: expected one argument"),
        ("m --served-model-name", "argument --served-model-name: expected at least one argument"),
    ],
)
def test_words_are_refused_as_argparse_does(words: str, reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        parse(words.split(), LINES)
