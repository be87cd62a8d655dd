"""What the documentation tells people to type exists: make targets, commands, Python names."""

from __future__ import annotations

import ast
import importlib
import json
import re
import shlex
from pathlib import Path

import click
import pytest

from benchmarks.speed import decode_speed
from scripts import update_cli_docs

ROOT = Path(__file__).resolve().parent.parent
PAGES = (
    "README.md",
    "CONTRIBUTING.md",
    "examples/README.md",
    "docs/benchmarks.md",
    "recipes/README.md",
)
PROGRAMS = update_cli_docs.groups()


def blocks(text: str, language: str) -> list[str]:
    """The contents of the fenced blocks of one language."""
    fenced = re.findall(r"^```(.*?)\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
    return [block for found, block in fenced if found == language]


def command_lines() -> list[str]:
    pages = [(ROOT / page).read_text(encoding="utf-8") for page in PAGES]
    found = [block.replace("\\\n", " ") for page in pages for block in blocks(page, "bash")]
    return [line for block in found for line in block.splitlines()]


def starting_with(program: str) -> list[str]:
    return [line for line in command_lines() if shlex.split(line)[:1] == [program]]


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
    program, *arguments = shlex.split(line)
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
    targets = make_targets((ROOT / "Makefile").read_text(encoding="utf-8"))
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
    snippets = blocks((ROOT / "README.md").read_text(encoding="utf-8"), "python")
    assert snippets
    for snippet in snippets:
        assert missing_names(snippet) == []


def test_a_wrong_snippet_is_found() -> None:
    snippet = "import baldwhisper_mlx\nfrom json import load, lod\nbaldwhisper_mlx.transcribed('a')"
    assert missing_names(snippet) == ["json.lod", "baldwhisper_mlx.transcribed"]


def test_command_line_page_is_current() -> None:
    page = update_cli_docs.OUTPUT.read_text(encoding="utf-8")
    assert page == update_cli_docs.render(), "run scripts/update_cli_docs.py"


@pytest.mark.parametrize(
    "page",
    [
        *PAGES,
        "benchmarks/RESULTS.md",
        *(f"docs/{name}.md" for name in ("cli", "compression", "evaluation", "format", "profile")),
    ],
)
def test_links_to_files_resolve(page: str) -> None:
    path = ROOT / page
    for target in re.findall(r"\]\(([^)#]+)\)", path.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (path.parent / target).exists(), target


def test_file_tree_is_complete() -> None:
    (tree,) = blocks((ROOT / "README.md").read_text(encoding="utf-8"), "")
    named = set(re.findall(r"[\w.]+\.py", tree))
    package_files = [
        *(ROOT / "baldwhisper_mlx").rglob("*.py"),
        *(ROOT / "convert/baldwhisper_convert").rglob("*.py"),
    ]
    present = {path.name for path in package_files if not path.name.startswith("_")}
    assert named == present


def test_figures_are_those_of_the_result_files() -> None:
    result = json.loads((ROOT / "benchmarks/results/decode_speed.json").read_text())
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert decode_speed.markdown(result) in readme
    assert f"{result['primitives_per_step']['gpu']} primitives" in readme
