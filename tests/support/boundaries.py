"""Reads the import graph and the proportions of a package from its source.

Used by test_boundaries.py, on the real packages and on small broken ones. Every import counts:
at the top, inside a function, under TYPE_CHECKING, and `importlib.import_module("a literal")`.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

Graph = dict[str, set[str]]
"""Module to the modules and packages it imports, all by full dotted name."""


def modules(root: Path) -> dict[str, Path]:
    """Every module of the package in folder `root`, by dotted name."""
    found = {}
    for path in sorted(root.rglob("*.py")):
        parts = [root.name, *path.relative_to(root).with_suffix("").parts]
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(path: Path, name: str) -> Iterator[str]:
    """Full dotted names that a module imports; for `from a import b` it is `a.b`."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, base] if base else above)
            yield from (f"{base}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = ast.unparse(node.func)
            if called in ("importlib.import_module", "import_module", "__import__"):
                yield str(node.args[0].value)


def graph(*roots: Path) -> Graph:
    """The import graph of packages; names of modules in them are cut to the module."""
    known = {name: path for root in roots for name, path in modules(root).items()}
    result: Graph = {}
    for name, path in known.items():
        result[name] = set()
        for target in imports(path, name):
            # `from package import module` means the module, `from module import thing` its module
            parent = target.rpartition(".")[0]
            result[name].add(parent if target not in known and parent in known else target)
    return result


def importers(edges: Graph, forbidden: set[str]) -> list[str]:
    """`module -> import` for every import of, or from, one of the `forbidden` packages."""
    return sorted(
        f"{name} -> {target}"
        for name, targets in edges.items()
        for target in targets
        if target.split(".")[0] in forbidden
    )


def within(name: str, rooms: str) -> bool:
    """Whether a module is one of the comma-separated `rooms`, or inside one of them."""
    return any(name == room or name.startswith(f"{room}.") for room in rooms.split(", "))


def layer_breaches(edges: Graph, package: str, layers: str) -> list[str]:
    """Imports inside `package` that do not go to a room further right in `layers`.

    Args:
        edges: the import graph.
        package: whose own `__init__` is free, because it names what users import.
        layers: "upper > middle, beside > lower". Folders are named; `(root)` stands for all
            modules that lie directly in the package. A folder without a place is a breach.
    """
    floors = [floor.split(", ") for floor in layers.split(" > ")]
    place = {room: number for number, floor in enumerate(floors) for room in floor}
    folders = {name.split(".")[1] for name in edges if name.count(".") > 1}

    def room(name: str) -> str:
        first = name.split(".")[1] if "." in name else package
        return first if first in folders or first == package else "(root)"

    wrong = []
    for name, targets in edges.items():
        if not name.startswith(f"{package}."):
            continue
        for target in targets:
            if not within(target, package) or room(name) == room(target):
                continue
            if place.get(room(name), len(floors)) >= place.get(room(target), -1):
                wrong.append(f"{name} -> {target}")
    return sorted(wrong)


def breaches(edges: Graph, packages: tuple[str, ...], rule: tuple[str, str, str]) -> list[str]:
    """Imports that break one rule of the table in test_boundaries.py; see there."""
    who, kind, rooms = rule
    if kind == "layers":
        return layer_breaches(edges, who, rooms)
    wrong = []
    for name, targets in edges.items():
        for target in targets:
            ours = target.split(".")[0] in packages
            breach = {
                "never": within(name, who) and within(target, rooms),
                "only": within(name, who) and ours and not within(target, rooms),
                "only imported by": within(target, who)
                and name not in packages
                and not within(name, f"{rooms}, {who}"),
            }
            if breach[kind]:
                wrong.append(f"{name} -> {target}")
    return sorted(wrong)


def circle(edges: Graph) -> list[str]:
    """One circle of imports, as the modules along it; empty if there is none."""
    done: set[str] = set()

    def visit(name: str, path: list[str]) -> list[str]:
        if name in path:
            return [*path[path.index(name) :], name]
        if name in done:
            return []
        for target in sorted(edges[name] & edges.keys()):
            if found := visit(target, [*path, name]):
                return found
        done.add(name)
        return []

    return next((found for name in sorted(edges) if (found := visit(name, []))), [])


def proportions(path: Path, *, module_lines: int, function_lines: int) -> list[str]:
    """What is too long or has no module docstring in one file."""
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    wrong = [] if ast.get_docstring(tree) else [f"{path}: no module docstring"]
    if len(text.splitlines()) > module_lines:
        wrong.append(f"{path}: {len(text.splitlines())} lines")
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > function_lines:
                wrong.append(f"{path}:{node.lineno}: {node.name} has {length} lines")
    return wrong
