"""The tree of errors: each has an outcome, and each tells the user what to do."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from importlib import import_module
from inspect import signature
from pathlib import Path
from pkgutil import walk_packages

import pytest

import mmd
from mmd import errors
from mmd.cli.verbs import mmd as cli
from mmd.errors import MmdError, NoSuchModel, outcome, outcome_of

ROOT = Path(mmd.__file__).parent


def tree(kind: type[MmdError] = MmdError) -> Iterator[type[MmdError]]:
    yield kind
    for child in kind.__subclasses__():
        yield from tree(child)


# Every module, or the tree would have the classes of those that earlier tests have imported. Hooks raise none.
for _module in walk_packages(mmd.__path__, "mmd."):
    if not _module.name.startswith("mmd.hooks.") and not _module.name.endswith("__main__"):
        import_module(_module.name)
KINDS = [kind for kind in tree() if kind.__module__.startswith("mmd.")]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_outcome_of_every_error(kind: type[MmdError]) -> None:
    it = outcome_of(kind)
    assert 1 <= it.exit_status <= 6
    assert 400 <= it.http_status < 600
    assert it.openai_type.endswith("_error")
    assert (it.openai_type == "server_error") == (it.http_status >= 500)


@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("WrongUsage", 2),
        ("NoSuchModel", 3),
        ("DoesNotFit", 4),
        ("EngineMissing", 5),
        ("EngineFailed", 6),
        ("StorageFailed", 1),
        ("RegistryDamaged", 1),
        ("ManagerUnreachable", 1),
    ],
)
def test_exit_status_is_what_was_promised(name: str, status: int) -> None:
    assert outcome_of(getattr(errors, name)).exit_status == status


def test_outcome_of_a_class_without_a_row_is_its_parents() -> None:
    class Nearer(NoSuchModel): ...

    assert outcome(Nearer("", hint="")) == outcome_of(NoSuchModel)


def test_tree_is_drawn_at_the_top() -> None:
    drawn = errors.__doc__ or ""
    assert not [kind.__name__ for kind in KINDS if not re.search(rf"\b{kind.__name__}\b", drawn)]


# --- every place that raises an error


def calls() -> list[tuple[str, ast.Call]]:
    """Yield every call in mmd/ that makes an error and passes the hint, by file and line."""
    names = {kind.__name__ for kind in KINDS if "hint" in signature(kind).parameters}
    return [
        (f"{path.relative_to(ROOT)}:{node.lineno}", node)
        for path in sorted(ROOT.rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in names
    ]


def hints() -> list[tuple[str, str]]:
    """Return the literal parts of a hint, with `{}` for its fields."""
    return [(where, text(word.value)) for where, call in calls() for word in call.keywords if word.arg == "hint"]


def text(node: ast.expr) -> str:
    match node:
        case ast.Constant(value=str(value)):
            return value
        case ast.JoinedStr(values=values):
            return "".join(text(value) if isinstance(value, ast.Constant) else "{}" for value in values)
        case _:
            return "{}"


def test_every_error_that_is_raised_has_a_hint() -> None:
    assert len(calls()) > 40, "the walk finds them"
    without = [
        where
        for where, call in calls()
        if "hint" not in {word.arg for word in call.keywords} and not any(word.arg is None for word in call.keywords)
    ]
    assert not without
    assert not [where for where, hint in hints() if not hint.strip()]


def test_every_verb_in_a_hint_exists() -> None:
    """A hint must be a command to paste."""
    unknown = [
        f"{where}: mmd {verb}"
        for where, hint in hints()
        for verb in verbs(hint)
        if verb not in cli.commands and verb != "{}"
    ]
    assert not unknown


def verbs(hint: str) -> list[str]:
    words = hint.replace(";", " ; ").split()
    starts = {0} | {at + 1 for at, word in enumerate(words) if word in (";", "&&", "then:") or word.endswith(":")}
    return [words[at + 1] for at in sorted(starts) if at + 1 < len(words) and words[at] == "mmd"]


def test_messages_are_one_line() -> None:
    assert not [where for where, call in calls() if call.args and "\n" in text(call.args[0])]
