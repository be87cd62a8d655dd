"""What commands that read many files say about each: its name, its error, whether it is there."""

from __future__ import annotations

from pathlib import Path

import click

from baldwhisper_mlx.cli.inputs import STDIN
from baldwhisper_mlx.terminal import printable

# What bad audio, a full disk and non-finite logits raise. Anything else is a bug, and shows its
# traceback.
FILE_ERRORS = (OSError, ValueError, ArithmeticError, RuntimeError, MemoryError)


def is_readable(name: str) -> bool:
    """Whether an input can be opened; reports on standard error why not."""
    if name == STDIN:
        return True
    path = Path(name)
    if path.is_dir():
        report(name, ValueError("the folder contains no audio files"))
    elif not path.exists():
        report(name, FileNotFoundError("no such file"))
    else:
        return True
    return False


def report(name: str, error: Exception) -> None:
    """Prints an error on standard error, with the name of the input it is about."""
    message = str(error) or type(error).__name__
    plain = "stdin" if name == STDIN else name
    prefix = "" if message.startswith(plain) else f"{plain}: "
    click.echo(f"error: {printable(prefix + message)}", err=True)


def label(name: str) -> str:
    """The name of a file for messages."""
    return "stdin" if name == STDIN else printable(name)
