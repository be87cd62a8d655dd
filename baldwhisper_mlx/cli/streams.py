"""Standard streams that were closed before the program started, as by `<&-` or `>&-` in a shell.

Their numbers would go to the next files that are opened, and what is printed would be written into
those, or be lost without an error.
"""

from __future__ import annotations

import os
import sys


def open_standard_streams() -> None:
    """Opens those that are closed: an empty input, an output that fails, errors that go nowhere."""
    # For reading, so that results that are written there are an error and not lost.
    for number, name, flags in (
        (0, "stdin", os.O_RDONLY),
        (1, "stdout", os.O_RDONLY),
        (2, "stderr", os.O_WRONLY),
    ):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, flags)  # the lowest number that is free, thus this one
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)
            if getattr(sys, name) is None:
                mode = "r" if name == "stdin" else "w"
                setattr(sys, name, open(number, mode, closefd=False))  # noqa: SIM115


def output_is_open() -> bool:
    """Whether standard output can be written to."""
    try:
        os.write(1, b"")
    except OSError:
        return False
    return True
