"""Writes docs/cli.md: the `--help` of every command, as a user sees it in 80 columns.

    .venv/bin/python scripts/update_cli_docs.py

tests/test_readme.py compares the file with what this script would write, so that no command
or option goes undocumented.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import click

ROOT = Path(__file__).resolve().parent.parent
OUTPUT = ROOT / "docs/cli.md"
COLUMNS = 80

HEADER = """# Command line

Written by `scripts/update_cli_docs.py` from the commands' own `--help`; do not edit.
"""


def groups() -> dict[str, click.Group]:
    """The two programs, by the name of their console script."""
    import baldwhisper_convert.cli.main
    import baldwhisper_mlx.cli.main

    return {
        "baldwhisper": baldwhisper_mlx.cli.main.cli,
        "baldwhisper-convert": baldwhisper_convert.cli.main.main,
    }


def help_texts(
    command: click.Command, name: str, parent: click.Context | None = None
) -> Iterator[tuple[str, str]]:
    """Full name and help of a command and of all commands below it."""
    context = click.Context(
        command, info_name=name, parent=parent, terminal_width=COLUMNS, max_content_width=COLUMNS
    )
    context.help_option_names = ["-h", "--help"]
    yield context.command_path, command.get_help(context)
    if isinstance(command, click.Group):
        for child in command.list_commands(context):
            found = command.get_command(context, child)
            if found is not None:
                yield from help_texts(found, child, context)


def render() -> str:
    """The whole of docs/cli.md."""
    parts = [HEADER]
    for name, group in groups().items():
        for path, text in help_texts(group, name):
            level = "##" if path == name else "###"
            lines = "\n".join(line.rstrip() for line in text.splitlines())
            parts.append(f"{level} `{path}`\n\n```\n{lines}\n```\n")
    return "\n".join(parts)


if __name__ == "__main__":
    sys.path[:0] = [str(ROOT), str(ROOT / "convert")]
    OUTPUT.write_text(render(), encoding="utf-8")
