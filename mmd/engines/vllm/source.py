"""Read the options of a vLLM from its source in a tenth of a second; `vllm --help` takes ten.

Tested with vLLM 0.10 to 0.33, which define their frontend arguments in three places.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_FRONTENDS = (
    "entrypoints/common/cli_args.py",  # since 0.33
    "entrypoints/launchers/cli_args.py",
    "entrypoints/openai/cli_args.py",
)
_TOOL_PARSERS = ("tool_parsers", "entrypoints/openai/tool_parsers")
_REASONING_PARSERS = ("reasoning",)


@dataclass(frozen=True, slots=True)
class Accepted:
    """What vLLM's command line accepts: options as written, and the names of parsers."""

    flags: frozenset[str]
    tool_parsers: frozenset[str]
    reasoning_parsers: frozenset[str]


def scan(package: Path) -> Accepted:
    """Read the package's source. Raises OSError if a file is missing, SyntaxError if one cannot be parsed."""
    frontend = next((package / name for name in _FRONTENDS if (package / name).exists()), package / _FRONTENDS[0])
    return Accepted(
        flags=frozenset((*_options(package / "engine/arg_utils.py"), *_options(frontend))),
        tool_parsers=frozenset(_parser_names(package, _TOOL_PARSERS)),
        reasoning_parsers=frozenset(_parser_names(package, _REASONING_PARSERS)),
    )


def _options(file: Path) -> Iterator[str]:
    """Yield every `add_argument("--x")`, and the fields of the classes that the frontend turns into options."""
    for node in ast.walk(_parsed(file)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "add_argument":
            yield from (word for word in _strings(node.args) if word.startswith("--"))
        elif isinstance(node, ast.ClassDef) and node.name.endswith("FrontendArgs"):
            for field in node.body:
                if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
                    yield f"--{field.target.id.replace('_', '-')}"


def _parser_names(package: Path, folders: tuple[str, ...]) -> Iterator[str]:
    """Yield names from the table of newer versions; in older ones each module registers its class by a decorator."""
    folder = next((package / name for name in folders if (package / name).is_dir()), None)
    for file in sorted(folder.glob("*.py")) if folder else ():
        for node in ast.walk(_parsed(file)):
            if _is_table(node):
                assert isinstance(node, ast.Assign | ast.AnnAssign)
                assert isinstance(node.value, ast.Dict)
                yield from _strings(key for key in node.value.keys if key is not None)
            elif isinstance(node, ast.ClassDef):
                for decorator in node.decorator_list:
                    yield from _registered(decorator)


def _is_table(node: ast.AST) -> bool:
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    named = any(isinstance(target, ast.Name) and target.id.endswith("_PARSERS_TO_REGISTER") for target in targets)
    return named and isinstance(getattr(node, "value", None), ast.Dict)


def _registered(decorator: ast.expr) -> Iterator[str]:
    """Yield the names in `@ToolParserManager.register_module("a")`, or in a list of several."""
    if not isinstance(decorator, ast.Call) or getattr(decorator.func, "attr", "") != "register_module":
        return
    for given in (*decorator.args, *(keyword.value for keyword in decorator.keywords)):
        yield from _strings(given.elts if isinstance(given, ast.List | ast.Tuple) else [given])


def _strings(nodes: object) -> Iterator[str]:
    assert isinstance(nodes, list) or hasattr(nodes, "__iter__")
    for node in nodes:
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def _parsed(file: Path) -> ast.Module:
    return ast.parse(file.read_text("utf-8"), str(file))
