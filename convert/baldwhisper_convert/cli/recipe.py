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


@recipe.command()
@click.option("--teacher", required=True, metavar="MODEL", help="Model to compress.")
@click.option(
    "--language", required=True,
    help="Language of the speech, as a code or English name. For one that the model does not know, "
    "give a related one: its token then stands for the new language.",
)  # fmt: skip
@click.option("--hours", required=True, type=float, help="Hours of transcribed speech.")
@click.option("--clip-seconds", default=5.0, show_default=True, help="Mean length of the clips.")
@click.option("--train", default="data/train", show_default=True, metavar="SOURCE",
              help="Speech to train on.")  # fmt: skip
@click.option("--dev", default="data/dev", show_default=True, metavar="SOURCE",
              help="Other speech, that chooses the weights.")  # fmt: skip
@click.option("--keep", metavar="LANGUAGE=SOURCE",
              help="Another language that the model is not to forget, and transcribed speech in "
              "it, which is replayed in the training.")  # fmt: skip
@click.option("--output", "-o", type=_FILE, help="File to write.  [default: standard output]")
@click.option("--force", is_flag=True, help="Replace the file.")
def new(
    teacher: str,
    language: str,
    hours: float,
    clip_seconds: float,
    train: str,
    dev: str,
    keep: str | None,
    output: Path | None,
    force: bool,
) -> None:
    """Write a commented recipe.

    Layers and rank fit the teacher, passes over the speech fit its hours. `run --dry-run` says
    what the recipe takes on this machine.
    """
    with one_line_errors():
        from baldwhisper_convert.pipeline.new_recipe import new_recipe
        from baldwhisper_convert.readers.read import read_checkpoint
        from baldwhisper_mlx.files import write_atomically

        if output is not None and output.exists() and not force:
            raise FileExistsError(f"{output}: exists already; --force replaces it")
        kept, equals, source = (keep or "").partition("=")
        if keep and not (kept and equals and source):
            raise click.UsageError(f"--keep {keep}: expected LANGUAGE=SOURCE, such as fr=speech/fr")
        text = new_recipe(
            read_checkpoint(teacher), teacher, language, hours,
            clip_seconds=clip_seconds, train=train, dev=dev,
            keep=(kept, source) if keep else None,
        )  # fmt: skip
        if output is None:
            say(text.rstrip("\n"))
        else:
            write_atomically(output, text)
            say(f"{output}: written; check it with: baldwhisper-convert run {output} --dry-run")
