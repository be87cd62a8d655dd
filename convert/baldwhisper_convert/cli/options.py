"""Options that several commands of `baldwhisper-convert` have in common."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])

FOLDER = click.Path(path_type=Path)


def changes_option(function: F) -> F:
    """`--set KEY=VALUE`: any setting of the stage."""
    return click.option(
        "--set",
        "changes",
        multiple=True,
        metavar="KEY=VALUE",
        help="Set a setting, such as training.learning_rate=1e-4; repeatable.",
    )(function)


def force_option(function: F) -> F:
    """`--force`: replace the destination."""
    return click.option("--force", is_flag=True, help="Replace DST if it is a model folder.")(
        function
    )


def data_option(help_text: str, *, required: bool = True) -> Callable[[F], F]:
    """`--data PREPARED[:SHARE]`: folders that `prepare` made.

    Args:
        help_text: what this command uses the data for, as a sentence.
        required: whether the command needs it.
    """
    return click.option(
        "--data", "data", multiple=True, required=required, metavar="PREPARED[:SHARE]",
        help=f"{help_text} A folder made by `prepare`, and the share of it to use; repeatable.",
    )  # fmt: skip


dev_option = click.option(
    "--dev",
    multiple=True,
    metavar="PREPARED[:SHARE]",
    help="Development data to measure on: a folder made by `prepare`; repeatable. Of data in "
    "several languages, the word error rate of each is reported.",
)
