"""Errors and warnings as the command line shows them: one line each."""

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
    """Expected errors and the sources' warnings as one line each; anything else is a bug
    and keeps its traceback. SIGTERM unwinds like Ctrl-C, so that nothing half is left."""
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        try:
            yield
        except (ValueError, OSError, ModuleNotFoundError) as error:
            raise click.ClickException(" ".join(str(error).split())) from None


def _show_warning(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
    # By name, because importing the classes would import torch for --help.
    if category.__name__ in ("SourceWarning", "ExportWarning"):
        click.echo(f"Warning: {message}", err=True)
