"""The architecture as a table: the allowed imports of each layer, and what the pure core must not touch."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import mmd

ROOT = Path(mmd.__file__).parent

# Every layer with I/O may use these.
SHARED = {"atomic", "codec", "errors", "files", "parent_death", "paths", "quantities", "tasks"}

SETTINGS = {"settings", "setting_values", "settings_edit"}

# Data flows one way: models on the disk -> decisions -> systemd and the engines -> programs and people.
MAY_IMPORT: dict[str, set[str]] = {
    "errors": set(),
    "paths": set(),
    "journal": set(),
    "codec": set(),
    "atomic": {"paths"},
    "files": {"errors", "paths"},
    "parent_death": set(),
    "quantities": set(),
    "tasks": {"errors"},
    "setting_values": {"quantities"},
    "settings": {"errors", "paths", "setting_values"},
    "settings_edit": {"errors", "paths", "atomic", "settings", "registry"},
    "machine": {"codec", "errors"},
    "registry": {*SHARED},
    "plan": {"errors", "machine", "quantities", "registry"},
    "engines": {*SHARED, "machine", "plan", "registry"},
    "units": {*SHARED, "plan"},
    "hooks": set(),
    "control": {
        *SHARED,
        "journal",
        "settings",
        "setting_values",
        "settings_edit",
        "machine",
        "registry",
        "plan",
        "engines",
        "units",
    },
    "gateway": {*SHARED, "journal", "settings", "setting_values", "machine", "registry", "plan", "units", "control"},
    "cli": {*SHARED, "journal", "settings", "machine", "registry", "plan", "control", "gateway"},
}

# The rooms of a layer in the order of their imports: each may import those before it. "" is the layer's own folder.
ROOMS: dict[str, tuple[str, ...]] = {
    "control": ("state", "models", "tunnel", "install", "memory", "lifecycle", "storage", "doctor"),
    "gateway": ("http", "schedule", "observe", "proxy", "api", ""),
}

# plan/ may use these modules of the standard library: none that reads, waits, draws or speaks.
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
# Of the layers below, plan/ may import the records, not the modules that read them.
PURE_INTERNALS = {
    "mmd.errors",
    "mmd.machine",
    "mmd.quantities",
    "mmd.registry.formats.ggml",
    "mmd.registry.layout",
    "mmd.registry.offer",
    "mmd.registry.record",
}

# The modules in an engine's folder that read files, run programs or need what does. All others are pure.
IMPURE_ENGINE_PARTS = {
    *("__init__", "engine", "find", "install", "installer", "breakdown", "embedded", "embedded_main"),
    *("cache", "help", "source", "torch_build"),
}


def modules() -> list[Path]:
    return sorted(
        path for path in ROOT.rglob("*.py") if path.parent != ROOT or path.stem not in ("__init__", "__main__")
    )


def imports_of(path: Path) -> Iterator[str]:
    """Yield every module that a file imports, anywhere in it; a typing-only import couples as much as any."""
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


@pytest.mark.parametrize("path", sorted((ROOT / "plan").rglob("*.py")), ids=lambda path: path.name)
def test_plan_is_pure(path: Path) -> None:
    _assert_pure(path, siblings={"mmd.plan"})


def test_pure_parts_of_engines() -> None:
    """A module of an engine that is not among the parts that do I/O is held to the rules of plan/."""
    pure = [path for path in ROOT.glob("engines/*/*.py") if _engine_part(path) not in IMPURE_ENGINE_PARTS]
    assert {path.parent.name for path in pure} == {"llama", "vllm"}
    for path in pure:
        parts = {_engine_part(other) for other in path.parent.glob("*.py")} - IMPURE_ENGINE_PARTS
        _assert_pure(path, siblings={"mmd.plan", *(f"mmd.engines.{path.parent.name}.{part}" for part in parts)})


def _engine_part(path: Path) -> str:
    return "installer" if path.parent.name == "installer" else path.stem


def _assert_pure(path: Path, *, siblings: set[str]) -> None:
    for name in imports_of(path):
        is_sibling = any(name == sibling or name.startswith(f"{sibling}.") for sibling in siblings)
        known = is_sibling or name.split(".")[0] in PURE_MODULES or name in PURE_INTERNALS
        assert known, f"{path.relative_to(ROOT)} imports {name}"
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


def room_of(path: Path) -> str:
    """Return the folder of a module inside its layer; a module in the layer's own folder is a room by itself."""
    parts = path.relative_to(ROOT).parts
    return "/".join(parts[:2]) if len(parts) > 2 else "/".join(parts).removesuffix(".py")


def internal_imports() -> dict[Path, set[Path]]:
    """Return the modules of mmd that each module imports."""
    found: dict[Path, set[Path]] = {}
    for path in modules():
        found[path] = set()
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if not isinstance(node, ast.ImportFrom) or not (node.module or "").startswith("mmd."):
                continue
            assert node.module is not None
            for alias in node.names:
                base = ROOT.parent / Path(*node.module.split("."))
                candidates = (base / f"{alias.name}.py", base.with_suffix(".py"), base / "__init__.py")
                found[path].add(next(file for file in candidates if file.is_file()))
    return found


def circles(graph: dict[str, set[str]]) -> set[str]:
    """Return the nodes that take part in a circle or lead to one."""
    left = dict(graph)
    while free := {node for node in left if not left[node] & (left.keys() - {node})}:
        left = {node: to for node, to in left.items() if node not in free}
    return set(left)


def test_no_circle_among_modules() -> None:
    graph = {str(path): {str(other) for other in others - {path}} for path, others in internal_imports().items()}
    assert not circles(graph)


def test_no_circle_among_rooms() -> None:
    graph: dict[str, set[str]] = {}
    for path, others in internal_imports().items():
        graph.setdefault(room_of(path), set()).update(room_of(other) for other in others)
    assert not circles(graph)


@pytest.mark.parametrize("layer", ROOMS)
def test_rooms_follow_their_order(layer: str) -> None:
    def room(path: Path) -> str:
        parts = path.relative_to(ROOT / layer).parts
        return parts[0] if len(parts) > 1 else ""

    order = ROOMS[layer]
    inside = {path: others for path, others in internal_imports().items() if layer_of(path) == layer}
    assert {room(path) for path in inside} - {""} == set(order) - {""}
    wrong = [
        f"{path.relative_to(ROOT)} imports {other.relative_to(ROOT)}"
        for path, others in inside.items()
        for other in others
        if layer_of(other) == layer and order.index(room(other)) > order.index(room(path))
    ]
    assert not wrong


def test_every_layer_is_in_the_table() -> None:
    assert {layer_of(path) for path in modules()} == set(MAY_IMPORT)
