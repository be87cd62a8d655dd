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
        help="Change a setting, such as training.learning_rate=1e-4; repeatable.",
    )(function)


def force_option(function: F) -> F:
    """`--force`: replace the destination."""
    return click.option("--force", is_flag=True, help="Replace DST if it is a model folder.")(
        function
    )


def data_option(help_text: str, *, required: bool = True) -> Callable[[F], F]:
    """`--data PREPARED[:SHARE]`, with a help text of its own."""
    return click.option(
        "--data", "data", multiple=True, required=required, metavar="PREPARED[:SHARE]",
        help=help_text,
    )  # fmt: skip


dev_option = click.option("--dev", metavar="PREPARED", help="Prepared development data.")
