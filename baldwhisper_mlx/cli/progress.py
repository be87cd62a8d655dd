"""The progress bar on standard error, and printing while it is shown."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import Any

from baldwhisper_mlx.cli.reporting import label

Progress = Callable[[float, float], None]


@contextlib.contextmanager
def progress_bar(name: str) -> Iterator[Progress | None]:
    """A progress bar in seconds of audio; None, and no bar, unless standard error is a terminal.

    Args:
        name: of the file.
    """
    if not sys.stderr.isatty():
        yield None
        return
    from tqdm import tqdm

    layout = "{desc} {percentage:3.0f}% |{bar}| {n:.0f}/{total:.0f} s [{elapsed}<{remaining}]"
    with tqdm(total=0.0, desc=label(name), bar_format=layout, leave=False) as bar:

        def advance(done: float, total: float) -> None:
            bar.total = total
            bar.update(min(done, total) - bar.n)

        yield advance


@contextlib.contextmanager
def beside_bars(stream: Any) -> Iterator[None]:
    """Takes progress bars away while something is printed, and shows them again.

    Args:
        stream: that is printed on.
    """
    tqdm = sys.modules.get("tqdm")
    if tqdm is None:  # there has been no bar
        yield
    else:
        with tqdm.tqdm.external_write_mode(file=stream):
            yield
