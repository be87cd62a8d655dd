"""Click options that several benchmarks share, and how a command line names models."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from baldwhisper_mlx.bench.machine import chip
from baldwhisper_mlx.evaluation.normalizers import NORMALIZERS
from benchmarks.machines import slug
from benchmarks.result_files import RESULTS

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


class Benchmark(click.Command):
    """A command that reports bad input as an error message, and not as a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        """Runs the command.

        Raises:
            click.ClickException: bad input, or a package or program that is missing or failed.
        """
        try:
            return super().invoke(ctx)
        except (ImportError, OSError, RuntimeError, ValueError) as error:
            if isinstance(error, (click.exceptions.Exit, click.Abort)):
                raise
            raise click.ClickException(str(error)) from error


def named_model(item: str) -> tuple[str, Path]:
    """Name and folder of a model given as NAME=DIR.

    Raises:
        click.UsageError: it is not, or there is no such folder.
    """
    name, _, folder = item.partition("=")
    if not name or not folder or not Path(folder).is_dir():
        raise click.UsageError(f"{item}: give NAME=DIR, where DIR is a model folder")
    return name, Path(folder)


def model_or_bundled(item: str) -> tuple[str, Path | None]:
    """As `named_model`; without DIR, as in "NAME=", the bundled model (None).

    Raises:
        click.UsageError: there is no name, or no such folder.
    """
    name, equals, folder = item.partition("=")
    return (name, None) if name and equals and not folder else named_model(item)


def models_option(*, required: bool = True, bundled: bool = False) -> Decorator:
    """`--model NAME=DIR`, repeatable; with `bundled`, `NAME=` stands for the bundled model."""
    more = " NAME= without DIR is the bundled model." if bundled else ""
    return click.option(
        "--model",
        "models",
        multiple=True,
        required=required,
        metavar="NAME=DIR",
        help=f"A model folder and what to call it; repeatable.{more}",
    )


normalizer_option = click.option(
    "--normalizer", type=click.Choice(NORMALIZERS), default="whisper-english",
    show_default=True, help="See docs/evaluation.md.",
)  # fmt: skip


def numbers(text: str, least: int = 1) -> tuple[int, ...]:
    """Whole numbers above zero, given with commas between them, in ascending order.

    Args:
        text: the numbers.
        least: that each may be, 0 or 1.

    Raises:
        click.BadParameter: it is something else.

    Example:
        >>> numbers("8,1,16")
        (1, 8, 16)
    """
    try:
        found = tuple(sorted({int(part) for part in text.split(",")}))
    except ValueError:
        found = (least - 1,)
    if found[0] < least:
        kind = "above zero" if least else "from zero on"
        raise click.BadParameter(f"{text}: give whole numbers {kind}, such as {least},4,8")
    return found


def numbers_or_zero(text: str) -> tuple[int, ...]:
    """As `numbers`, zero included."""
    return numbers(text, least=0)


def data_option(*, multiple: bool = False) -> Decorator:
    """`--data DIR`, a folder that exists; with `multiple`, a tuple of folders named `data`."""
    kind = click.Path(exists=True, file_okay=False, path_type=Path)
    text = "Folder of speech with a metadata.jsonl (file_name, text)."
    if multiple:
        text = f"{text[:-1]}; repeatable."
    return click.option(
        "--data", required=True, type=kind, metavar="DIR", help=text, multiple=multiple
    )


def output_option(kind: str | None = None, *, name: str = "--output") -> Decorator:
    """`--output FILE`, the result file.

    Args:
        kind: of the result, for a default of benchmarks/results/KIND-CHIP.json; without one the
            option is required.
        name: of the option.
    """
    path = click.Path(path_type=Path, dir_okay=False)
    if kind is None:
        return click.option(
            name, "output", required=True, type=path, metavar="FILE", help="Result file (JSON)."
        )
    return click.option(
        name,
        "output",
        type=path,
        metavar="FILE",
        default=RESULTS / f"{kind}-{slug(chip())}.json",
        help=f"Result file. Default: benchmarks/results/{kind}-CHIP.json.",
    )


language_option: Decorator = click.option(
    "--language", default="en", show_default=True, help="Code of the spoken language."
)
limit_option: Decorator = click.option(
    "--limit", type=click.IntRange(min=1), help="Only the first so many clips."
)
only_option: Decorator = click.option(
    "--only", multiple=True, metavar="TEXT", help="Variants whose name contains this; repeatable."
)
checkpoints_option: Decorator = click.option(
    "--output",
    "checkpoints",
    required=True,
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Folder for the checkpoints of the trainings.",
)


def prepared_options(**folders: str) -> Decorator:
    """Options for folders that `baldwhisper-convert prepare` wrote.

    Args:
        folders: their names, and what speech they are of.
    """
    folder = click.Path(exists=True, file_okay=False, path_type=Path)

    def add(function: Callable[..., Any]) -> Callable[..., Any]:
        for name, what in reversed(folders.items()):
            text = f"Prepared folder of {what}."
            option = click.option(f"--{name}", required=True, type=folder, metavar="DIR", help=text)
            function = option(function)
        return function

    return add


ablation_options = prepared_options(
    real="recordings", synthetic="synthetic speech", dev="development speech"
)
