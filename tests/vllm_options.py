"""The options of vLLM 0.32, read from `vllm_serve.txt`: for the command line of the fake and for its source."""

# ruff: noqa: PTH120, PTH123
from __future__ import annotations

import os

_LIST = os.path.join(os.path.dirname(__file__), "vllm_serve.txt")  # noqa: PTH118


class UsageError(Exception):
    """Words that vLLM's parser refuses; the text is its message."""


def sections() -> dict[str, list[str]]:
    """Return the lines below each heading: `engine`, `server`, `tool parsers`, `reasoning parsers`."""
    found: dict[str, list[str]] = {}
    with open(_LIST, encoding="utf-8") as file:
        for line in file.read().splitlines():
            if line.startswith("["):
                lines = found.setdefault(line.strip("[]"), [])
            elif not line.startswith("#"):
                lines.append(line)
    return found


def spellings(lines: list[str]) -> dict[str, tuple[str, str]]:
    """Return every spelling of every option with its first long spelling and its hint: "", "VALUE", "[VALUE]" or
    "VALUE…".
    """
    found: dict[str, tuple[str, str]] = {}
    for line in lines:
        names, _, hint = line.rpartition(" ") if line.endswith(("VALUE", "VALUE]", "VALUE…")) else (line, "", "")
        first = next(name for name in names.split(", ") if name.startswith("--"))
        found |= dict.fromkeys(names.split(", "), (first, hint))
    return found


def parse(argv: list[str], lines: list[str]) -> dict[str, list[str]]:
    """Return the options by their first spelling, with their values; the model is `--model`. Raises UsageError."""
    known = spellings(lines)
    options: dict[str, list[str]] = {}
    unknown: list[str] = []
    words = list(reversed(argv))
    while words:
        word = words.pop()
        name, equals, value = word.partition("=")
        if word.startswith("-O") and word[2:].isdigit():
            options["--optimization-level"] = [word[2:]]
        elif not word.startswith("-"):
            (unknown if "--model" in options else options.setdefault("--model", [])).append(word)
        elif (name := name.replace("_", "-")) in known:
            first, hint = known[name]
            options[first] = [value] if equals else _values(name, hint, words)
        else:
            unknown.append(word)
    if unknown:
        raise UsageError(f"unrecognized arguments: {' '.join(unknown)}")
    return options


def _values(name: str, hint: str, words: list[str]) -> list[str]:
    """Pop the values of the option off the end of `words`."""
    values: list[str] = []
    while hint and words and _is_value(words[-1]) and (not values or hint.endswith("…")):
        values.append(words.pop())
    if hint and not values and not hint.startswith("["):
        raise UsageError(f"argument {name}: expected {'at least one argument' if '…' in hint else 'one argument'}")
    return values


def _is_value(word: str) -> bool:
    return not word.startswith("-") or word[1:].replace(".", "", 1).isdigit()
