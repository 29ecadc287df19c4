"""An environment as `pip install vllm` leaves it, with the fake vLLM and source code to read its flags from."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

from tests.vllm_options import sections, spellings

_ENGINE = Path(__file__).with_name("vllm_engine.py")
# Added to the parser one by one; the server's other options are fields of a class.
_ADDED = ("--headless", "--api-server-count", "--config", "--grpc")


def install_fake_vllm(folder: Path, version: str = "0.32.0+cpu") -> Path:
    """Make the environment in `folder`; return its `vllm`, a program that runs."""
    packages = folder / "lib/python3.11/site-packages"
    lists = sections()
    files = {
        folder / "pyvenv.cfg": f"home = {Path(sys.base_prefix) / 'bin'}\ninclude-system-site-packages = false\n",
        packages / f"vllm-{version}.dist-info/METADATA": f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}\n",
        packages / "vllm/__init__.py": "",
        packages / "vllm/engine/arg_utils.py": _arg_utils(lists["engine"]),
        packages / "vllm/entrypoints/launchers/cli_args.py": _cli_args(lists["server"]),
        packages / "vllm/tool_parsers/__init__.py": _registry("TOOL", lists["tool parsers"]),
        packages / "vllm/reasoning/__init__.py": _registry("REASONING", lists["reasoning parsers"]),
    }
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    program = folder / "bin/vllm"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -I -S "{_ENGINE}" "{version}" "$@"\n')
    program.chmod(0o755)
    for name in ("python", "python3"):
        (program.parent / name).symlink_to(sys.executable)
    return program


def _arg_utils(lines: Iterable[str]) -> str:
    added = "".join(_add_argument("group", line) for line in lines)
    return f"""\
import argparse
from dataclasses import dataclass


@dataclass
class EngineArgs:
    \"\"\"Arguments for vLLM engine.\"\"\"

{_fields(lines)}
    @staticmethod
    def add_cli_args(parser):
        kwargs = get_kwargs(EngineArgs)
        group = parser.add_argument_group(title="ModelConfig")
{added}        return parser


@dataclass
class AsyncEngineArgs(EngineArgs):
    \"\"\"Arguments for asynchronous vLLM engine.\"\"\"
"""


def _cli_args(lines: list[str]) -> str:
    added = [line for line in lines if line.startswith(_ADDED)]
    fields = [line for line in lines if line not in added]
    return f"""\
from vllm.config import config


@config
class BaseFrontendArgs:
    \"\"\"Base arguments for the OpenAI-compatible frontend server.\"\"\"

{_fields(fields[:20])}

@config
class FrontendArgs(BaseFrontendArgs):
    \"\"\"Arguments for the OpenAI-compatible frontend server.\"\"\"

{_fields(fields[20:])}

def make_arg_parser(parser):
    parser.add_argument("model_tag", type=str, nargs="?")
    kwargs = {{}}
{"".join(_add_argument("parser", line, indent=4) for line in added)}\
    parser = FrontendArgs.add_cli_args(parser)
    return parser
"""


def _fields(lines: Iterable[str]) -> str:
    rows = []
    for name, (first, hint) in spellings(list(lines)).items():
        if name == first:
            kind = {"": "bool", "VALUE…": "list[str] | None"}.get(hint, "str | None")
            rows.append(f'    {_field(name)}: {kind} = None\n    """What it does."""\n')
    return "".join(rows)


def _add_argument(group: str, line: str, *, indent: int = 8) -> str:
    found = spellings([line])
    first = next(iter(found.values()))[0]
    words = ", ".join(f'"{name}"' for name in found if not name.startswith("--no-"))
    return f'{" " * indent}{group}.add_argument({words}, **kwargs["{_field(first)}"])\n'


def _field(name: str) -> str:
    return name.removeprefix("--").replace("-", "_")


def _registry(kind: str, names: Iterable[str]) -> str:
    rows = "".join(f'    "{name}": ("{name}_file", "Parser"),\n' for name in names)
    return f"_{kind}_PARSERS_TO_REGISTER = {{\n{rows}}}\n"
