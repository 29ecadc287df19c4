#!/usr/bin/env python3
"""Write the generated parts of the man pages.

    python packaging/man_pages.py            rewrite them: make man
    python packaging/man_pages.py --check    name the pages that are out of date, with status 1

Comments mark the parts; everything around them is written by hand:

    .\\" begin verbs pull search
    .\\" end
"""

from __future__ import annotations

import inspect
import re
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator
from dataclasses import MISSING
from pathlib import Path
from typing import Any

import click

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this checkout's mmd, not an installed one

from mmd.cli.verbs import mmd
from mmd.plan.launch import Launch, Sleep, WakeCheck
from mmd.settings import all_settings
from mmd.units.names import swap_slice, token_unit
from mmd.units.spec import Admission, Hooks, UnitSpec, engine_spec, swap_spec, token_spec

ROOT = Path(__file__).resolve().parents[1]
PAGES = tuple(sorted((ROOT / "packaging/man").glob("mmd*.[157]")))

_PART = re.compile(r'^\.\\" begin (?P<kind>\S+)(?P<words>.*)\n(?:.*\n)*?\.\\" end$', re.MULTILINE)
_SENTENCE_END = re.compile(r"(?<=[.?!]) +(?=[A-Z])")
_WIDTH = 72  # characters per line, without escapes
_REST = "*"  # commands that no part of the page names

ADMISSION = Admission({"GPU-8a3b1c2d": 23200}, waits_for=frozenset({"gemma3"}))

# A model whose engine can sleep: its units have every directive.
EXAMPLE = Launch(
    model_id="qwen3",
    engine="vllm",
    title="vLLM 0.32.0",
    type="chat",
    argv=("/opt/vllm/bin/vllm", "serve", "/models/qwen3", "--uds", "/run/user/1000/mmd/qwen3/api.sock"),
    environment=(("VLLM_SERVER_DEV_MODE", "1"),),
    context=0,
    needs_bytes=0,
    socket="/run/user/1000/mmd/qwen3/api.sock",
    share={"GPU-8a3b1c2d": 10240},
    keeps={"GPU-8a3b1c2d": 1280},
    sleep=Sleep(levels=(1, 2), weights_bytes=5 << 30, reserve_bytes=2 << 30, wake_check=WakeCheck.GENERATE),
    ready_seconds=660,
    stop_seconds=15,
    exits_zero_on_crash=True,
    flags=(),
)


def main() -> int:
    is_check = sys.argv[1:] == ["--check"]
    outdated = [page for page in PAGES if page.read_text("utf-8") != renewed(page.read_text("utf-8"))]
    for page in outdated:
        if is_check:
            print(f"{page.relative_to(ROOT)} is out of date", file=sys.stderr)
        else:
            page.write_text(renewed(page.read_text("utf-8")), "utf-8")
            print(page.relative_to(ROOT))
    if is_check and outdated:
        print("  → make man", file=sys.stderr)
        return 1
    return 0


def renewed(page: str) -> str:
    """Return a page with its marked parts renewed."""
    named = {verb for part in _PART.finditer(page) for verb in part["words"].split() if part["kind"] == "verbs"}

    def write(part: re.Match[str]) -> str:
        words = part["words"].split()
        if words[-1:] == [_REST]:
            words = [*words[:-1], *(name for name in visible(mmd) if name not in named)]
        lines = _KINDS[part["kind"]](words)
        return "\n".join([part[0].partition("\n")[0], *lines, '.\\" end'])

    return _PART.sub(write, page)


# -- verbs, from click's tree


def _verbs(names: Iterable[str]) -> Iterator[str]:
    for name in names:
        yield from _verb(f"mmd {name}", mmd.commands[name])


def _verb(path: str, command: click.Command) -> Iterator[str]:
    if isinstance(command, click.Group):
        yield from (".TP", f"{bold(path)} {italic('COMMAND')}")
    else:
        yield from (".TP", *_continued(synopsis(path, command)))
    yield from _paragraphs(command.help or "")
    options = [
        record
        for option in command.params
        if isinstance(option, click.Option) and option.name != "as_json"
        if (record := option.get_help_record(click.Context(command))) is not None
    ]
    inner = visible(command) if isinstance(command, click.Group) else {}
    if not options and not inner:
        return
    yield ".RS"
    for spelling, text in options:
        yield from (".TP", _spelled(spelling), *prose(text))
    for name, verb in inner.items():
        yield from _verb(f"{path} {name}", verb)
    yield ".RE"


def visible(group: click.Group) -> dict[str, click.Command]:
    return {name: command for name, command in group.commands.items() if not command.hidden}


def synopsis(path: str, command: click.Command) -> str:
    context = click.Context(command)
    words = [bold(path)]
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            if not parameter.hidden:
                words.append(f"[{_choice(parameter, context)}]")
        else:
            words.append(italic(parameter.make_metavar(context)))
    return " ".join(words)


def _choice(option: click.Option, context: click.Context) -> str:
    long = next(name for name in option.opts if name.startswith("--"))
    names = bold("|".join([long, *option.secondary_opts]))
    return names if option.is_flag else f"{names} {italic(_value(option, context))}"


def _value(option: click.Option, context: click.Context) -> str:
    """Return the placeholder of an option's value; its entry lists the choices."""
    return option.opts[0].strip("-").upper() if isinstance(option.type, click.Choice) else option.make_metavar(context)


def _spelled(record: str) -> str:
    """Format click's `-n, --lines N`: options bold, values italic."""
    return " ".join(bold(word) if word[:1] == "-" else word if word == "/" else italic(word) for word in record.split())


def _paragraphs(text: str) -> Iterator[str]:
    """Fill the paragraphs of a help text, except those that begin with \\b."""
    for number, paragraph in enumerate(inspect.cleandoc(text).split("\n\n")):
        if number:
            yield ".IP"
        if paragraph.startswith("\b\n"):
            yield from (".EX", *map(roff, paragraph.splitlines()[1:]), ".EE")
        else:
            yield from prose(paragraph)


# -- settings, from their tables


def _settings(words: list[str]) -> Iterator[str]:
    (table,) = words
    for setting in all_settings()[table]:
        yield ".TP"
        yield bold(setting.key)
        yield from prose(f"{setting.help[0].upper()}{setting.help[1:]}.")
        yield from prose(f"It is {setting.kind}; {_default(setting.default)}.")


def _default(value: Any) -> str:
    if value is MISSING:
        return "required"
    match value:
        case None:
            return "by default not set"
        case ():
            return "by default empty"
        case bool():
            return f"by default {str(value).lower()}"
        case str():
            return f'by default "{value}"'
        case _:
            return f"by default {value}"


# -- units


def _files(_: list[str]) -> Iterator[str]:
    """Describe the files in units/, sorted by name."""
    for file in sorted((ROOT / "units").iterdir()):
        directives = dict(line.partition("=")[::2] for line in file.read_text("utf-8").splitlines() if "=" in line)
        wanted = f", wanted by {directives['WantedBy']}" if "WantedBy" in directives else ""
        what = directives["Description"].replace("%i", "ID")
        yield from (".TP", bold(file.name), *prose(f"{what}{wanted}."))


def _example(words: list[str]) -> Iterator[str]:
    (role,) = words
    lines = (part for line in EXAMPLE_UNITS[role].text().splitlines() for part in _continued(line, indent="    "))
    yield from (".EX", *map(roff, lines), ".EE")


def _example_units() -> dict[str, UnitSpec]:
    def hook(name: str) -> tuple[str, ...]:
        return ("/usr/bin/python3", "-I", "-S", f"HOOKS/{name}.py")

    hooks = Hooks(
        ready=hook("ready"),
        gate=hook("gate"),
        wake=hook("wake"),
        release=hook("release"),
        wait_released=hook("wait_released"),
    )
    return {
        "engine": engine_spec(EXAMPLE, hooks),
        "token": token_spec(EXAMPLE, hooks, ADMISSION),
        "swap": swap_spec(swap_slice(4242, 1), (EXAMPLE.model_id,), (token_unit("gemma3"),)),
    }


EXAMPLE_UNITS = _example_units()


# -- roff


def prose(text: str) -> Iterator[str]:
    """Fill text; each sentence starts a new line, as is usual in roff."""
    for sentence in _SENTENCE_END.split(" ".join(text.split())):
        yield from map(roff, textwrap.wrap(sentence, _WIDTH, break_on_hyphens=False, break_long_words=False))


def _continued(line: str, *, indent: str = "") -> list[str]:
    """Split a long line into several that end with a backslash, which roff and unit files join."""
    if not line:
        return [line]
    *parts, last = textwrap.wrap(line, _WIDTH, subsequent_indent=indent, break_on_hyphens=False, break_long_words=False)
    return [*(f"{part} \\" for part in parts), last]


def roff(text: str) -> str:
    """Escape a line for roff: it cannot become a request, and hyphens stay hyphens when pasted."""
    text = text.replace("\\", "\\e").replace("-", "\\-").replace("`", "").replace("'", "\\(aq").replace("~", "\\(ti")
    text = "".join(_SYMBOLS.get(character, character) for character in text)
    return f"\\&{text}" if text.startswith(".") else text


_SYMBOLS = {"·": "\\(pc", "→": "\\(->", "…": "...", "≈": "\\(~~", "^": "\\(ha"}


def bold(text: str) -> str:
    return f"\\fB{roff(text)}\\fR"


def italic(text: str) -> str:
    return f"\\fI{roff(text)}\\fR"


_KINDS: dict[str, Callable[[list[str]], Iterator[str]]] = {
    "verbs": _verbs,
    "settings": _settings,
    "files": _files,
    "example": _example,
}

if __name__ == "__main__":
    sys.exit(main())
