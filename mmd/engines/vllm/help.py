"""vLLM's own list of its options. Printing it takes ten seconds, because vLLM imports everything."""

from __future__ import annotations

import os
import re
from pathlib import Path

from mmd.errors import EngineMissing

_TIMEOUT_SECONDS = 120
# An option's line: "  --enable-sleep-mode, --no-enable-sleep-mode", "  --max-num-seqs MAX_NUM_SEQS".
_LINE = re.compile(r"^  (?P<spellings>--?[a-zA-Z0-9].*?)(?:  |$)", re.MULTILINE)
_OPTION = re.compile(r"(?<![\w-])--[a-z0-9][a-z0-9-]*")


def ask_for_help(program: Path) -> frozenset[str]:
    """Return the options in `vllm serve --help=all`. Raises EngineMissing with vLLM's own last line."""
    import subprocess

    try:
        done = subprocess.run(
            ("nice", "-n", "19", program, "serve", "--help=all"),
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, errors="replace", timeout=_TIMEOUT_SECONDS, check=False, env=os.environ | {"COLUMNS": "200"},
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        raise EngineMissing(f"{program} cannot be run: {error}", hint=f"{program} --version") from error
    flags = parse_help(done.stdout)
    if done.returncode != 0 or "--uds" not in flags:
        lines = done.stdout.strip().splitlines()
        raise EngineMissing(
            f"{program} does not start: {lines[-1].strip() if lines else 'it printed nothing'}",
            hint=f"{program} --version   # its full message; to install another: mmd engine install vllm",
        )
    return flags


def parse_help(text: str) -> frozenset[str]:
    """Return every option in argparse's help, without --help, and without --no-x if there is --x."""
    found = {option for line in _LINE.finditer(text) for option in _OPTION.findall(line["spellings"])}
    negations = {option for option in found if f"--{option.removeprefix('--no-')}" in found - {option}}
    return frozenset(found - negations - {"--help"})
