"""Commands, units, files and settings that the man pages and the README name."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click

from mmd.cli.verbs import mmd

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PAGES = tuple(sorted((ROOT / "packaging/man").glob("mmd*")))
DOCUMENTS = (README, *PAGES)

_EXAMPLE = re.compile(r"^\.EX\n(.*?)^\.EE$", re.MULTILINE | re.DOTALL)
_FENCED = re.compile(r"^```\w*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_INDENTED = re.compile(r"^ {4}.*", re.MULTILINE)
_INLINE = re.compile(r"`([^`\n]+)`")
_COMMAND = re.compile(r"(?:^|[\s(;\"$])mmd ((?:[a-z-]+|--?[a-z]).*)")
_COMMAND_END = re.compile(r"\s[#|>;&]| \(|\)|, or ")


@dataclass(frozen=True, slots=True)
class Named:
    """A command line of mmd in a document."""

    line: str
    words: tuple[str, ...]


def text_of(document: Path) -> str:
    """Return the text without roff's escapes."""
    text = document.read_text("utf-8")
    return unescaped(text) if document in PAGES else text


def unescaped(roff: str) -> str:
    for escape, character in (
        ("\\-", "-"),
        ("\\(aq", "'"),
        ("\\(ti", "~"),
        ("\\(ha", "^"),
        ("\\(pc", "·"),
        ("\\&", ""),
        (" \\\n", " "),
        ("\\e", "\\"),
    ):
        roff = roff.replace(escape, character)
    return re.sub(r"\\f[BIR]", "", roff)


def code_of(document: Path) -> Iterator[str]:
    """Yield lines to paste, and words in a code font."""
    text = text_of(document)
    if document not in PAGES:
        for block in (*_FENCED.findall(text), *_INDENTED.findall(text)):
            yield from block.splitlines()
        yield from _INLINE.findall(_FENCED.sub("", text))
        return
    for block in _EXAMPLE.findall(text):
        yield from block.splitlines()
    for line in _EXAMPLE.sub("", document.read_text("utf-8")).replace(" \\\n", " ").splitlines():
        if line.startswith((".B ", ".BR ", ".BI ", "\\fB")):
            yield unescaped(line).replace('"', "")


def commands_of(document: Path) -> Iterator[Named]:
    for line in code_of(document):
        if found := _COMMAND.search(line):
            yield Named(line.strip(), tuple(_COMMAND_END.split(found[1])[0].split()))


def what_is_wrong(words: tuple[str, ...]) -> str:
    """Return the verb or option of a command line that does not exist, or ""."""
    command: click.Command = mmd
    if "--" in words:  # another program's words follow
        words = words[: words.index("--")]
    for number, word in enumerate(words):
        if not isinstance(command, click.Group) or word.startswith("-") or not word.isalpha() or word.isupper():
            words = words[number:]
            break
        if word not in command.commands:
            return f"there is no verb {word}"
        command = command.commands[word]
    known = {name for option in command.params for name in (*option.opts, *option.secondary_opts)}
    known |= {"-h", "--help", "--version"}
    named = (name for word in words for name in re.findall(r"(?<!\S)\[?(--?[a-z][a-z-]*)", word))
    return "".join(f"there is no option {name}; " for name in named if name not in known)


def example_settings(document: Path) -> Iterator[str]:
    """Yield what a document would put into mmd.toml: TOML blocks in Markdown, examples with a table in a man page."""
    text = text_of(document)
    if document in PAGES:
        table = re.compile(r"^\[(gateway|engines|models)", re.MULTILINE)
        yield from filter(table.search, _EXAMPLE.findall(text))
    else:
        yield from re.findall(r"^```toml\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
