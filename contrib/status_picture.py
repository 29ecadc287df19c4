#!/usr/bin/env python3
"""The README's picture: terminal output with a real llama.cpp and a real vLLM on tiny models, as an SVG.

    make picture

The session has a user manager and a home of its own, like the demo's.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from xml.sax.saxutils import escape

from contrib.demo import Session, StepFailed
from tests.user_manager import UserManager, user_manager

PICTURE = Path(__file__).with_name("status.svg")
HERE = Path(__file__).parent
_LOAD_SECONDS = 600.0  # vLLM takes half a minute on an idle CPU

# Pixels; a character of any monospaced font fits in 0.62 of its size.
_SIZE = 14
_LINE = 20
_MARGIN = 16
_CHARACTER = 0.62 * _SIZE

_STYLE = """\
    text { font: 14px ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace; white-space: pre }
    rect { fill: #f6f8fa; stroke: #d0d7de }
    text { fill: #1f2328 }
    .prompt { font-weight: bold }
    .dim { fill: #656d76 }
    .on { fill: #116329 }
    .asleep { fill: #0550ae }
    @media (prefers-color-scheme: dark) {
      rect { fill: #161b22; stroke: #30363d }
      text { fill: #e6edf3 }
      .dim { fill: #8d96a0 }
      .on { fill: #7ee787 }
      .asleep { fill: #79c0ff }
    }"""
# Commands, and filters that keep their output short enough for a picture.
_SHOWN = (
    ("mmd activate coder",),
    ("mmd status",),
    ("systemctl --user list-units 'mmd-*@*'", "--no-pager", "--legend=no", "--plain"),
)
_WORDS = {"active": "on", "running": "on", "ready": "on", "sleeping": "asleep"}


def main() -> int:
    try:
        engines = {name: os.environ[f"MMD_TEST_{name.upper()}"] for name in ("llama_server", "vllm")}
    except KeyError as error:
        print(f"mmd: {error.args[0]} names no engine\n  → make picture", file=sys.stderr)
        return 2
    with user_manager() as manager:
        try:
            lines = play(manager, **engines)
        except StepFailed as error:
            print(f"mmd: {error}\n  → journalctl -n 50", file=sys.stderr)
            return 1
        finally:
            manager.systemctl("stop", "mmd-*")
    PICTURE.write_text(picture(lines), "utf-8")
    print(PICTURE)
    return 0


def play(manager: UserManager, llama_server: str, vllm: str) -> list[str]:
    """Set up two models, each with an engine of its own kind; in the picture, one is loaded beside the other."""
    make_models(manager.home, vllm)
    settings = manager.home / ".config/mmd/mmd.toml"
    settings.parent.mkdir(parents=True)
    settings.write_text(f'[engines]\nllama-server = "{llama_server}"\nvllm = "{vllm}"\n', "utf-8")
    session = Session(manager, {})
    for words in (
        ("add", str(manager.home / "coder.gguf")),
        ("add", str(manager.home / "writer")),
        ("activate", "writer"),
    ):
        session.ask("mmd", *words, patience_seconds=_LOAD_SECONDS)
    lines: list[str] = []
    for command, *unseen in _SHOWN:
        lines += ["", f"$ {command}", *session.ask(*shlex.split(command), *unseen).output.splitlines()]
    session.ask("mmd", "stop")
    return lines[1:]


def make_models(home: Path, vllm: str) -> None:
    """Write the models with a Python that has numpy: this one for llama.cpp, vLLM's for vLLM."""
    for words in (
        (sys.executable, str(HERE / "tiny_gguf.py"), str(home / "coder.gguf"), "--name", "coder"),
        (str(Path(vllm).with_name("python")), str(HERE / "tiny_safetensors.py"), str(home / "writer")),
    ):
        subprocess.run(words, check=True, timeout=120)


def picture(lines: list[str]) -> str:
    width = round(max(map(len, lines)) * _CHARACTER) + 2 * _MARGIN
    height = len(lines) * _LINE + 2 * _MARGIN
    texts = "\n".join(
        f'  <text x="{_MARGIN}" y="{_MARGIN + number * _LINE + _SIZE}" xml:space="preserve">{marked(line)}</text>'
        for number, line in enumerate(lines)
        if line
    )
    return f"""\
<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" role="img">
  <title>mmd status and systemctl on a terminal</title>
  <style>
{_STYLE}
  </style>
  <rect x="0.5" y="0.5" width="{width - 1}" height="{height - 1}" rx="8"/>
{texts}
</svg>
"""


def marked(line: str) -> str:
    if line.startswith("$ "):
        return f'<tspan class="prompt">{escape(line)}</tspan>'
    if line.startswith("MODEL "):
        return f'<tspan class="dim">{escape(line)}</tspan>'
    return re.sub(
        r"\b\w+\b",
        lambda word: f'<tspan class="{_WORDS[word[0]]}">{word[0]}</tspan>' if word[0] in _WORDS else word[0],
        escape(line),
    )


if __name__ == "__main__":
    sys.exit(main())
