"""Every benchmark command that a page or a docstring names exists, starts and takes its options."""

from __future__ import annotations

import importlib
import importlib.util
import re
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(
    path
    for pattern in ("*.md", "Makefile", "docs/*.md", "recipes/*", "benchmarks/*.md")
    for path in ROOT.glob(pattern)
    if path.suffix in (".md", ".toml", "")
    if path.is_file() and path.name not in ("LICENSE", "NOTICE", ".gitignore")
)
SOURCES = [
    path
    for folder in ("benchmarks", "baldwhisper_mlx", "convert", "scripts")
    for path in sorted((ROOT / folder).rglob("*"))
    if path.suffix in (".py", ".md")
]
COMMAND = re.compile(r"python -m (benchmarks[\w.]*\w)((?:[^`\n]*\\\n)*[^`\n]*)")
PATH = re.compile(r"(?<![\w/])benchmarks/[\w/]+\.py\b")


def texts() -> list[tuple[str, str]]:
    found = [(str(path.relative_to(ROOT)), path.read_text("utf-8")) for path in [*PAGES, *SOURCES]]
    assert len(found) > 100
    return found


# (where, module, the rest of the command)
COMMANDS = [
    (name, *match.groups())
    for name, text in texts()
    for match in COMMAND.finditer(text.replace("\\\\\n", "\\\n"))
]
PROGRAMS = sorted(
    str(path.relative_to(ROOT).with_suffix("")).replace("/", ".").removesuffix(".__main__")
    for path in (ROOT / "benchmarks").rglob("*.py")
    if 'if __name__ == "__main__"' in path.read_text("utf-8")
)


def program(module: str) -> click.Command:
    """The command of `python -m module`."""
    package = importlib.util.find_spec(f"{module}.__main__") if is_package(module) else None
    main = importlib.import_module(f"{module}.__main__" if package else module).main
    assert isinstance(main, click.Command)
    return main


def is_package(module: str) -> bool:
    return (ROOT / module.replace(".", "/")).is_dir()


def test_commands_are_found() -> None:
    named = {module for _, module, _ in COMMANDS}
    assert {"benchmarks.peers", "benchmarks.speed.soak", "benchmarks.report"} <= named
    assert any("--results" in rest for _, _, rest in COMMANDS)  # of a second line


@pytest.mark.parametrize(("where", "module", "rest"), COMMANDS, ids=lambda part: str(part)[:40])
def test_commands_in_pages_and_docstrings(where: str, module: str, rest: str) -> None:
    command = program(module)
    options = {
        name
        for parameter in command.params
        for name in [*parameter.opts, *parameter.secondary_opts]
    }
    words = [word.partition("=")[0] for word in rest.replace("\\\n", " ").split()]
    given = {word.strip("`.,;:()\"'") for word in words if word.startswith("--")}
    assert given <= options | {"--help"}, f"{where}: python -m {module}{rest}"


def test_paths_of_benchmarks_in_pages_and_docstrings() -> None:
    missing = [
        f"{name}: {path}"
        for name, text in texts()
        for path in PATH.findall(text)
        if not (ROOT / path).is_file()
    ]
    assert missing == []


@pytest.mark.parametrize("module", PROGRAMS)
def test_programs_start(module: str) -> None:
    command = program(module)
    result = CliRunner().invoke(command, ["--help"])
    assert result.exit_code == 0, result.output
    assert command.help
    for parameter in command.params:
        if isinstance(parameter, click.Option) and not parameter.hidden:
            assert parameter.help, f"{module}: {parameter.opts[0]} has no help"


@pytest.mark.parametrize("module", PROGRAMS)
def test_docstrings_say_how_programs_are_run(module: str) -> None:
    callback = program(module).callback
    text = sys.modules[callback.__module__].__doc__ or ""
    assert "python -m benchmarks" in text
