"""Signals that end a live transcription: the utterance at hand is finished first.

Standard library only.
"""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Iterator
from typing import Any

_NAMES = ("SIGINT", "SIGTERM", "SIGHUP")  # the last one is not on every system


class StopSignal:
    """Whether a signal has asked for the end, and which one first.

    No threading.Event: its lock would be taken by two signals at once.
    """

    def __init__(self) -> None:
        self.number: int | None = None

    def is_set(self) -> bool:
        """Whether the end was asked for."""
        return self.number is not None

    @property
    def hung_up(self) -> bool:
        """Whether the terminal was closed."""
        return self.number is not None and self.number == getattr(signal, "SIGHUP", None)


@contextlib.contextmanager
def interruption() -> Iterator[StopSignal]:
    """Notes the first Ctrl-C, SIGTERM or SIGHUP, so that the utterance at hand is finished.

    A second Ctrl-C or SIGTERM ends the program at once. SIGHUP does not: a terminal that is closed
    sends it more than once. Where it is ignored, as under nohup, it still is.

    Raises:
        KeyboardInterrupt, SystemExit: a second one came.
    """
    stop = StopSignal()

    def on_signal(number: int, frame: Any) -> None:
        if not stop.is_set():
            stop.number = number
        elif number == signal.SIGINT:
            raise KeyboardInterrupt
        elif number == signal.SIGTERM:
            sys.exit(128 + number)

    numbers = [getattr(signal, name) for name in _NAMES if hasattr(signal, name)]
    before = {number: signal.getsignal(number) for number in numbers}
    taken = [
        number
        for number, handler in before.items()
        if number == signal.SIGINT or handler is not signal.SIG_IGN
    ]
    for number in taken:
        signal.signal(number, on_signal)
    try:
        yield stop
    finally:
        for number in taken:
            signal.signal(number, before[number])
