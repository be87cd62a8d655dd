"""Prints expected errors and warnings in one line each, and nothing that a terminal would obey."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import warnings
from collections.abc import Iterator
from typing import Any

import click

from baldwhisper_mlx.terminal import printable

_OURS = ("baldwhisper_convert", "baldwhisper_mlx")
_EXTRAS = {"ax": "search", "ray": "ray"}
"""Packages that are not in the extra `convert`, with theirs."""


class Commands(click.Group):
    """A group for which a standard output that cannot be written to is an error of one line."""

    def main(self, *args: Any, **options: Any) -> Any:
        try:
            return super().main(*args, **options)
        except OSError as error:
            click.echo(f"Error: {one_line(error)}", err=True)
            # Or the interpreter would try again, and exit with 120.
            with contextlib.suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(1)


@contextlib.contextmanager
def one_line_errors() -> Iterator[None]:
    """Prints errors of the library and warnings about models in one line.

    Other exceptions are bugs and keep their traceback. Ctrl-C and SIGTERM unwind the command, so
    that temporary files are removed, and exit with 130 and 143, as shells report these signals.
    """
    before = signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        try:
            yield
        except ModuleNotFoundError as error:
            package = (error.name or "").split(".")[0]
            if package in _OURS:
                raise
            # Without a name it is raised by us, with a text that says what to do.
            text = _missing(package) if package else one_line(error)
            raise click.ClickException(text) from None
        except (ValueError, OSError, MemoryError) as error:
            problems: list[str] = getattr(error, "problems", [])
            if len(problems) > 1:
                lines = "".join(f"\n  - {printable(problem)}" for problem in problems)
                raise click.ClickException(f"{len(problems)} problems:{lines}") from None
            raise click.ClickException(one_line(error)) from None
        except KeyboardInterrupt:
            click.echo("Interrupted", err=True)
            sys.exit(128 + signal.SIGINT)
        finally:
            signal.signal(signal.SIGTERM, before)


def one_line(error: BaseException) -> str:
    """An error as one line: its text, or for one without text, its kind."""
    text = " ".join(str(error).split())
    if isinstance(error, MemoryError):
        text = f"not enough memory{text and f' ({text})'}"
    return printable(text or f"{type(error).__name__} without a message")


def say(text: str) -> None:
    """Prints a line of progress or a result; names in it may come from anywhere."""
    click.echo(printable(text, keep="\n"))


def _missing(package: str) -> str:
    extra = _EXTRAS.get(package, "convert")
    return (
        f"the package {printable(package)} is not installed, which this command needs; install it "
        f"with: pip install 'baldwhisper-mlx[{extra}]'"
    )


def _show_warning(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
    # By name, because importing the classes would load torch for --help.
    if category.__name__ in ("SourceWarning", "ExportWarning", "SuppressedLabelWarning"):
        click.echo(f"Warning: {printable(str(message))}", err=True)
