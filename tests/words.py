"""Count archaic turns of phrase in everything that a person reads, and fail if there are too many.

    python -m tests.words [PATH...]     # everything, or these files only

Reads comments and docstrings of all Python files, messages in those of `mmd/`, the comments and texts of the web page,
units, documents and man pages. Each hit is printed with its place. The word list is a floor, not a style guide: the
rules are in CONTRIBUTING.md.
"""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[1]

# Hits allowed in 1,000 words of each group.
BUDGETS = {"mmd": 0.3, "tests": 0.3, "documents": 0.3}

_GLOBS = {
    "mmd": ("mmd/**/*.py", "mmd/**/*.js", "mmd/**/*.html", "mmd/**/*.css", "units/*"),
    "tests": ("tests/**/*.py", "tests/**/*.c", "contrib/**/*.py", "packaging/*.py", "packaging/debian/*.py"),
    "documents": ("*.md", "mmd/**/*.md", "contrib/**/*.md", "packaging/man/*.[157]"),
}
_MIN_MESSAGE_WORDS = 3
_ARCHAIC = re.compile(
    r"""
    \b(?:
        nobody | somebody | anybody | whoever | whomever | whosoever
      | anew | lately | of[ ]late | hitherto | henceforth | forthwith
      | foretold | reckon\w* | heed\w* | laid[ ]down | in[ ]vain | be[ ]it | for[ ]want[ ]of | all[ ]the[ ]same
      | (?:is|are)[ ](?:not[ ])?to[ ]be | (?:is|are)[ ]not[ ]to | to[ ]be[ ]had
      | (?<!there[ ])is[ ]no[ ](?!longer\b|more\b|such\b)[a-z]+
      | (?:is|are)[ ]none[ ]of | goes[ ]for[ ]no | besides | thereby | whereby | thereof | wherein
      | of[ ]its[ ]own[ ]accord
      | who[ ](?:has|had|goes|asks|waits|comes|is) | so[ ]many | have[ ]it[ ]\w+ed | shall | lest | unto | upon | ere
    )\b
    """,
    re.IGNORECASE | re.VERBOSE,
)
_ROFF = re.compile(r"\\f[BIRP]|\\&|^\.\w+ ?", re.MULTILINE)
_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


@dataclass(slots=True)
class Count:
    words: int = 0
    hits: list[str] = field(default_factory=list)

    @property
    def per_thousand(self) -> float:
        return 1000 * len(self.hits) / max(self.words, 1)

    def add(self, place: str, text: str) -> None:
        self.words += len(text.split())
        for match in _ARCHAIC.finditer(" ".join(text.split())):
            around = match.string[max(match.start() - 40, 0) : match.end() + 40]
            self.hits.append(f"{place}: {match.group()!r} in: {around}")


def archaic_turns(text: str) -> list[str]:
    return [match.group() for match in _ARCHAIC.finditer(text)]


def files_of(group: str) -> list[Path]:
    return sorted({path for pattern in _GLOBS[group] for path in ROOT.glob(pattern) if path.is_file()})


def count(group: str, paths: Iterable[Path] | None = None) -> Count:
    """Count the files of a group, or those of these files that belong to it."""
    found = Count()
    files = files_of(group)
    for path in files if paths is None else sorted(set(files) & set(paths)):
        for line, text in _prose(path):
            found.add(f"{path.relative_to(ROOT)}:{line}", text)
    return found


def _prose(path: Path) -> Iterator[tuple[int, str]]:
    text = path.read_text("utf-8")
    if path.suffix == ".py":
        yield from _python_prose(text, with_messages=path.is_relative_to(ROOT / "mmd"))
    else:
        roff = re.fullmatch(r"\.[1-8]", path.suffix) is not None
        for number, line in enumerate(text.splitlines(), 1):
            yield number, _ROFF.sub("", line) if roff else line


def _python_prose(source: str, *, with_messages: bool) -> Iterator[tuple[int, str]]:
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string
    tree = ast.parse(source)
    docstrings = set()
    for node in ast.walk(tree):
        if isinstance(node, _DOCUMENTED) and (docstring := ast.get_docstring(node)):
            docstrings.add(id(node.body[0].value))  # type: ignore[attr-defined]
            yield node.body[0].lineno, docstring
    if with_messages:
        yield from _messages(tree, docstrings)


def _messages(node: ast.AST, docstrings: set[int]) -> Iterator[tuple[int, str]]:
    """Yield the string literals of several words; the fields of an f-string count as one word each."""
    text = ""
    if isinstance(node, ast.JoinedStr):
        text = "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)
    elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
        text = node.value
    if len(text.split()) >= _MIN_MESSAGE_WORDS:
        yield node.lineno, text  # type: ignore[attr-defined]
    if not isinstance(node, ast.JoinedStr):
        for child in ast.iter_child_nodes(node):
            yield from _messages(child, docstrings)


def main(words: list[str]) -> int:
    paths = [Path(word).resolve() for word in words] or None
    status = 0
    for group, budget in BUDGETS.items():
        found = count(group)
        shown = found if paths is None else count(group, paths)
        if found.per_thousand > budget:
            status = 1
            print(*shown.hits, sep="\n")
        print(f"{group}: {len(found.hits)} archaic turns in {found.words} words: ", end="")
        print(f"{found.per_thousand:.2f} per 1,000, at most {budget}")
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
