"""The commands `recipe schema` and `recipe new`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from baldwhisper_convert.cli.errors import one_line_errors, say

_FILE = click.Path(path_type=Path, dir_okay=False)


@click.group()
def recipe() -> None:
    """Write recipes, and the schema that editors complete them by."""


@recipe.command()
@click.option("--output", "-o", type=_FILE, help="File to write.  [default: standard output]")
def schema(output: Path | None) -> None:
    """Write the JSON schema of recipes.

    An editor with Taplo (Even Better TOML in VS Code) completes and checks a recipe that names the
    file at its top: #:schema recipe.schema.json
    """
    with one_line_errors():
        from baldwhisper_convert.pipeline.schema import recipe_schema
        from baldwhisper_mlx.files import write_atomically

        text = json.dumps(recipe_schema(), indent=1, ensure_ascii=False) + "\n"
        if output is None:
            say(text.rstrip("\n"))
        else:
            write_atomically(output, text)
