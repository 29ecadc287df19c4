"""The architecture as a table: who may import whom, and what the pure core may not touch."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import mmd

ROOT = Path(mmd.__file__).parent

# Data flows one way: what we have -> what we decide -> what we tell systemd and the engine -> who asks.
MAY_IMPORT: dict[str, set[str]] = {
    "errors": set(),
    "paths": set(),
    "journal": set(),
    "atomic": {"paths"},
    "settings": {"errors", "paths"},
    "settings_edit": {"errors", "paths", "atomic", "settings", "registry"},
    "machine": {"errors"},
    "registry": {"errors", "paths", "atomic"},
    "plan": {"errors", "machine", "registry"},
    "engines": {"errors", "paths", "atomic", "plan", "registry"},
    "units": {"errors", "paths", "atomic", "plan"},
    "hooks": set(),
    "control": {
        *("errors", "journal", "paths", "atomic", "settings", "settings_edit", "machine"),
        *("registry", "plan", "engines", "units"),
    },
    "gateway": {"errors", "paths", "atomic", "settings", "machine", "registry", "plan", "units", "control"},
    "cli": {"errors", "journal", "paths", "settings", "machine", "registry", "plan", "control", "gateway"},
}

# What plan/ may take from the standard library: nothing that reads, waits, draws or speaks.
PURE_MODULES = {
    "__future__",
    "collections",
    "dataclasses",
    "enum",
    "functools",
    "itertools",
    "json",
    "math",
    "re",
    "typing",
}
# Of the layers below, plan/ may see the records, not what reads them.
PURE_INTERNALS = {"mmd.errors", "mmd.machine", "mmd.registry.anatomy", "mmd.registry.offer", "mmd.registry.record"}


def modules() -> list[Path]:
    return sorted(
        path for path in ROOT.rglob("*.py") if path.parent != ROOT or path.stem not in ("__init__", "__main__")
    )


def imports_of(path: Path) -> Iterator[str]:
    """Every module a file imports, wherever in it; a typing-only import couples as much as any."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            assert node.module is not None
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from names if node.module == "mmd" else [node.module]


def layer_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_follow_the_table(path: Path) -> None:
    layer = layer_of(path)
    allowed = MAY_IMPORT[layer] | {layer}
    ours = [name.split(".") for name in imports_of(path) if name.split(".")[0] == "mmd"]
    wrong = [".".join(name) for name in ours if name[1:] and name[1] not in allowed and name[1] != "__version__"]
    assert not wrong, f"{layer} may not import {wrong}"


@pytest.mark.parametrize("path", sorted((ROOT / "plan").glob("*.py")), ids=lambda path: path.name)
def test_plan_is_pure(path: Path) -> None:
    for name in imports_of(path):
        if name.startswith("mmd.plan"):
            continue
        assert name.split(".")[0] in PURE_MODULES or name in PURE_INTERNALS, f"{path.name} imports {name}"
    tree = ast.parse(path.read_text("utf-8"))
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.Await | ast.AsyncFunctionDef)]


@pytest.mark.parametrize("path", sorted((ROOT / "hooks").glob("*.py")), ids=lambda path: path.name)
def test_hooks_need_only_the_standard_library(path: Path) -> None:
    siblings = {sibling.stem for sibling in (ROOT / "hooks").glob("*.py")}
    foreign = {name.split(".")[0] for name in imports_of(path)} - set(sys.stdlib_module_names) - siblings
    assert not foreign


def test_the_table_has_no_cycle() -> None:
    done: set[str] = set()
    while left := set(MAY_IMPORT) - done:
        ready = {layer for layer in left if MAY_IMPORT[layer] <= done}
        assert ready, f"a cycle among {left}"
        done |= ready


def test_every_layer_is_in_the_table() -> None:
    assert {layer_of(path) for path in modules()} == set(MAY_IMPORT)
