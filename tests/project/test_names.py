"""Names of tests: they can be read in one line of pytest's output."""

from __future__ import annotations

import ast
from pathlib import Path

from tests.words import archaic_turns

_TESTS = Path(__file__).parents[1]
_MAX_CHARACTERS = 60


def _test_names(path: Path) -> list[str]:
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    nodes = ast.walk(ast.parse(path.read_text()))
    return [node.name for node in nodes if isinstance(node, functions) and node.name.startswith("test_")]


def _all_names() -> list[str]:
    return [name for path in _TESTS.rglob("test_*.py") for name in _test_names(path)]


def test_names_have_at_most_60_characters() -> None:
    names = _all_names()
    assert len(names) > 1000
    assert [name for name in names if len(name) > _MAX_CHARACTERS] == []


def test_names_have_no_archaic_words() -> None:
    assert [name for name in _all_names() if archaic_turns(name.replace("_", " "))] == []
