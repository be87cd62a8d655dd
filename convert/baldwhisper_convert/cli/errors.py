"""Prints expected errors and warnings in one line each."""

from __future__ import annotations

import contextlib
import signal
import sys
import warnings
from collections.abc import Iterator
from typing import Any

import click


@contextlib.contextmanager
def one_line_errors() -> Iterator[None]:
    """Prints errors of the library and warnings about models in one line.

    Other exceptions are bugs and keep their traceback. SIGTERM is handled like Ctrl-C, so that
    temporary files are removed.
    """
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        try:
            yield
        except (ValueError, OSError, ModuleNotFoundError) as error:
            raise click.ClickException(" ".join(str(error).split())) from None


def _show_warning(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
    # By name, because importing the classes would load torch for --help.
    if category.__name__ in ("SourceWarning", "ExportWarning"):
        click.echo(f"Warning: {message}", err=True)
