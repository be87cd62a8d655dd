"""What the documentation names exists: commands, options, links, modules, Python names.

Figures are compared in tests/test_readme_figures.py.
"""

from __future__ import annotations

import ast
import importlib
import re
import shlex

import click
import pytest

from scripts import update_cli_docs
from tests import test_boundaries
from tests.support.pages import ROOT, blocks, read

README_LINES = 150
PAGES = (
    "README.md",
    "CONTRIBUTING.md",
    "examples/README.md",
    "recipes/README.md",
    "baldwhisper_mlx/assets/tiny-en/README.md",
    "docs/apple.md",
    "docs/architecture.md",
    "docs/benchmarks.md",
    "docs/compression.md",
    "docs/evaluation.md",
    "docs/format.md",
    "docs/guide-new-language.md",
    "docs/install.md",
    "docs/languages.md",
    "docs/output.md",
    "docs/page.md",
    "docs/profile.md",
    "docs/python.md",
    "docs/reproduction.md",
    "docs/scaling.md",
    "docs/server.md",
    "docs/short-context.md",
    "docs/training.md",
)
TREES = ("baldwhisper_mlx", "convert/baldwhisper_convert")
"""Packages whose modules docs/architecture.md lists."""
COINED = (
    "hears",
    "heard",
    "(is|are) told",
    "goes on",
    "one after the other",
    "in step",
    "in the box",
    "sheared",
)
PROGRAMS = update_cli_docs.groups()


def command_lines() -> list[str]:
    """What the pages tell people to type, continued lines joined."""
    lines: list[str] = []
    for page in PAGES:
        text = read(page)
        for block in blocks(text, "bash"):
            lines += block.replace("\\\n", " ").splitlines()
        for block in blocks(text, "console"):
            lines += [line[2:] for line in block.splitlines() if line.startswith("$ ")]
    return lines


def starting_with(program: str) -> list[str]:
    """Command lines of a program, without comments."""
    words = [shlex.split(line, comments=True) for line in command_lines()]
    return [shlex.join(line) for line in words if line[:1] == [program]]


def make_targets(makefile: str) -> set[str]:
    return {
        target
        for line in re.findall(r"^\.PHONY:(.*)$", makefile, flags=re.MULTILINE)
        for target in line.split()
    }


def parse(line: str) -> None:
    """Parses a command line as click would, without running it.

    Raises:
        click.UsageError: no such command or option, or a bad value.
    """
    program, *arguments = shlex.split(line, comments=True)
    command: click.Command = PROGRAMS[program]
    context = command.make_context(program, list(arguments))
    while isinstance(command, click.Group):
        arguments = [*context._protected_args, *context.args]
        name, found, rest = command.resolve_command(context, arguments)
        assert found is not None
        command = found
        context = command.make_context(name, rest, parent=context)


def missing_names(snippet: str) -> list[str]:
    """Modules that a Python snippet imports, and attributes of them it uses, that do not exist."""
    tree = ast.parse(snippet)
    used: list[tuple[str, str | None]] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            used += [(alias.name, None) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            used += [(str(node.module), alias.name) for alias in node.names]
    imported = {module for module, name in used if name is None}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) in imported:
            used.append((ast.unparse(node.value), node.attr))
    missing = []
    for module, name in used:
        found = importlib.import_module(module)
        if name is not None and not hasattr(found, name):
            missing.append(f"{module}.{name}")
    return missing


def test_make_targets_exist() -> None:
    targets = make_targets(read("Makefile"))
    lines = starting_with("make")
    assert {"make demo", "make test"} <= set(lines)
    for line in lines:
        named = [word for word in shlex.split(line)[1:] if "=" not in word]
        assert named
        assert set(named) <= targets, line


def recipe(makefile: str, target: str) -> list[str]:
    """The command lines of a target, with the Makefile's simple variables put in."""
    found = re.search(rf"^{target}:.*\n((?:\t.*\n)+)", makefile, flags=re.MULTILINE)
    assert found
    lines = found[1].replace("\t", "").splitlines()
    values = dict(re.findall(r"^(\w+) := (.*)$", makefile, flags=re.MULTILINE))
    for _ in values:  # one may hold another
        lines = [re.sub(r"\$\((\w+)\)", lambda m: values[m[1]], line) for line in lines]
    return lines


def test_the_demo_says_last_what_to_try_next() -> None:
    *_, transcribe, last = recipe((ROOT / "Makefile").read_text(encoding="utf-8"), "demo")
    said = re.fullmatch(r'@echo "Try your own recording: \.venv/bin/(baldwhisper .*)"', last)
    assert said, last
    parse(said[1])
    assert transcribe == ".venv/bin/baldwhisper transcribe examples/sample.wav"


@pytest.mark.parametrize("program", PROGRAMS)
def test_command_lines_parse(program: str) -> None:
    lines = starting_with(program)
    assert lines
    for line in lines:
        parse(line)


@pytest.mark.parametrize(
    "line",
    [
        "baldwhisper sing talk.mp3",
        "baldwhisper transcribe --model m",
        "baldwhisper transcribe talk.mp3 --model m --louder",
        "baldwhisper-convert export a b --dtype int3",
    ],
)
def test_a_wrong_command_line_does_not_parse(line: str) -> None:
    with pytest.raises(click.UsageError):
        parse(line)


def test_python_snippets_name_what_exists() -> None:
    snippets = blocks(read("README.md"), "python")
    assert snippets
    for snippet in snippets:
        assert missing_names(snippet) == []


def test_a_wrong_snippet_is_found() -> None:
    snippet = "import baldwhisper_mlx\nfrom json import load, lod\nbaldwhisper_mlx.transcribed('a')"
    assert missing_names(snippet) == ["json.lod", "baldwhisper_mlx.transcribed"]


def test_command_line_page_is_current() -> None:
    page = update_cli_docs.OUTPUT.read_text(encoding="utf-8")
    assert page == update_cli_docs.render(), "run scripts/update_cli_docs.py"


@pytest.mark.parametrize("page", [*PAGES, "benchmarks/RESULTS.md", "docs/cli.md", "docs/log.md"])
def test_links_to_files_resolve(page: str) -> None:
    path = ROOT / page
    for target in re.findall(r"\]\(([^)#]+)", read(page)):
        if "://" not in target:
            assert (path.parent / target).exists(), target


def headings(page: str) -> set[str]:
    """The anchors that GitHub makes of a page's headings."""
    titles = re.findall(r"^#+ (.+)$", read(page), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES)
def test_links_to_headings_resolve(page: str) -> None:
    for target, anchor in re.findall(r"\]\(([^)#:]*)#([^)]+)\)", read(page)):
        other = (ROOT / page).parent / target if target else ROOT / page
        assert anchor in headings(str(other.resolve().relative_to(ROOT))), anchor


def tree(block: str) -> dict[str, str]:
    """Modules of a tree, drawn by indentation, by path; each with its description."""
    found: dict[str, str] = {}
    folders: list[tuple[int, str]] = []
    for line in block.splitlines():
        name, _, description = line.strip().partition(" ")
        depth = len(line) - len(line.lstrip())
        folders = [(indent, folder) for indent, folder in folders if indent < depth]
        path = "".join(folder for _, folder in folders) + name
        if name.endswith("/"):
            folders.append((depth, name))
        else:
            assert path not in found, f"{path} is in the tree twice"
            found[path] = description.strip()
    return found


def test_file_tree_is_complete() -> None:
    """Every module is in docs/architecture.md, in its folder, and none that is gone."""
    trees = [tree(block) for block in blocks(read("docs/architecture.md"), "")]
    listed = {path: description for found in trees for path, description in found.items()}
    present = {
        path.relative_to(ROOT).as_posix()
        for package in TREES
        for path in (ROOT / package).rglob("*.py")
        if not path.name.startswith("_")
    }
    assert not present - listed.keys(), "add these modules to docs/architecture.md"
    assert not listed.keys() - present, "remove these from docs/architecture.md"
    assert [path for path, description in listed.items() if not description] == []


def test_a_tree_is_read_by_indentation() -> None:
    drawn = "a/\n  b/    room\n    c.py  one\n  c.py    two\nd/\n  c.py  three\n"
    assert tree(drawn) == {"a/b/c.py": "one", "a/c.py": "two", "d/c.py": "three"}


def test_layers_are_those_that_the_boundary_tests_enforce() -> None:
    page = read("docs/architecture.md")
    layers = [(who, rooms) for who, kind, rooms in test_boundaries.RULES if kind == "layers"]
    assert len(layers) == len(TREES)
    for who, rooms in layers:
        assert f"| `{who}` | `{rooms}` |" in page


def missing_files(text: str, files: set[str]) -> list[str]:
    """Python and recipe files that a text names in backticks and that are not there."""
    named = re.findall(r"`([\w/.-]+\.(?:py|toml))(?:::\w+)?`", text)
    return [name for name in named if not any(f"/{file}".endswith(f"/{name}") for file in files)]


@pytest.mark.parametrize("page", PAGES)
def test_files_named_in_the_text_exist(page: str) -> None:
    tops = (*TREES, "benchmarks", "recipes", "scripts", "tests")
    files = {
        path.relative_to(ROOT).as_posix()
        for top in tops
        for kind in ("*.py", "*.toml")
        for path in (ROOT / top).rglob(kind)
    } | {"pyproject.toml"}
    assert missing_files(read(page), files) == []


def test_a_missing_file_is_found() -> None:
    text = "see `a/b.py`, `b.py`, `x/b.py` and `c.toml`"
    assert missing_files(text, {"a/b.py"}) == ["x/b.py", "c.toml"]


def coined(text: str) -> list[str]:
    """Wording of our own where engineers have a standard term; see CONTRIBUTING.md."""
    return [phrase for phrase in COINED if re.search(rf"\b{phrase}\b", " ".join(text.split()))]


@pytest.mark.parametrize("page", PAGES)
def test_pages_use_standard_terms(page: str) -> None:
    assert coined(read(page)) == []


def test_coined_wording_is_found() -> None:
    text = "The model hears clips one after the\nother, in steps, and is told the text."
    assert coined(text) == ["hears", "(is|are) told", "one after the other"]


def test_the_readme_is_short() -> None:
    assert len(read("README.md").splitlines()) <= README_LINES
