"""The standard streams of the program: closed ones, standard input that can be interrupted.

A file that is opened while a standard stream is closed gets its number, and output meant for the
terminal may be written into it. Standard library only.
"""

from __future__ import annotations

import io
import os
import select
import sys
from collections.abc import Callable
from typing import Any

_POLL_SECONDS = 0.1
"""How long a read of standard input waits before it looks whether it is still wanted."""
_closed: set[str] = set()


class ClosedOutput(OSError):
    """Something was to be written to standard output, which is closed."""


class _Closed(io.TextIOBase):
    """In place of a standard output that is closed: what is written is not lost silently."""

    def write(self, text: Any) -> int:
        raise ClosedOutput("standard output is closed: open it, or give --output-dir")

    @property
    def buffer(self) -> _Closed:
        return self

    def isatty(self) -> bool:
        return False


def open_closed_streams() -> None:
    """Opens the null device in the place of every standard stream that is closed."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            null = os.open(os.devnull, os.O_RDWR)
            if null != number:
                os.dup2(null, number)
                os.close(null)
            _closed.add(name)
            stream = _Closed() if name == "stdout" else open(number, "r+", closefd=False)  # noqa: SIM115
            setattr(sys, name, stream)


def is_closed(name: str) -> bool:
    """Whether a standard stream was closed when the program started.

    Args:
        name: "stdin", "stdout" or "stderr".
    """
    return name in _closed


class Stdin:
    """Standard input as a binary stream whose reading can be ended by another thread.

    Args:
        check: called while it waits; what it raises ends the reading.
    """

    name = "stdin"
    """For messages and outputs."""

    def __init__(self, check: Callable[[], None]) -> None:
        self._check = check
        self._stream = sys.stdin.buffer
        try:
            self._number: int | None = self._stream.fileno()
        except (OSError, AttributeError):  # not a real one, in tests
            self._number = None

    def read(self, size: int = -1) -> bytes:
        """At most `size` bytes; none at the end."""
        if self._number is None:
            return self._stream.read(size)
        while not select.select([self._number], [], [], _POLL_SECONDS)[0]:
            self._check()
        return os.read(self._number, size if size >= 0 else 2**20)
