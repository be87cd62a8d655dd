"""Progress bars that say which stage works on which data, and how long the whole run still takes.

`run` names the stage with `working_on`, and whatever works below draws its bars with
`progress_bar`. So no function has to pass the name of the stage on.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from tqdm import tqdm

DELAY = 1.0
"""Seconds after which a bar appears; what is finished earlier needs none."""


@dataclass(frozen=True)
class _Place:
    text: str = ""
    after: float | None = None
    """What the run does after this work, as a multiple of it; None outside a run."""
    quiet: bool = False


_NOWHERE = _Place()
_PLACE: ContextVar[_Place] = ContextVar("place", default=_NOWHERE)


@contextlib.contextmanager
def working_on(text: str, after: float | None = None) -> Iterator[None]:
    """Starts the description of every bar in the block with a text.

    Args:
        text: such as "stage 2 of 5: merge, data train".
        after: estimate of all that the run does afterwards, as a multiple of this work; the bars
            then show the time that is left of the run, too.
    """
    token = _PLACE.set(_Place(text, after, _PLACE.get().quiet))
    try:
        yield
    finally:
        _PLACE.reset(token)


@contextlib.contextmanager
def without_bars() -> Iterator[None]:
    """Draws no bars in the block."""
    token = _PLACE.set(_Place(quiet=True))
    try:
        yield
    finally:
        _PLACE.reset(token)


def progress_bar(
    total: int | None,
    what: str,
    unit: str,
    *,
    initial: int = 0,
    disable: bool = False,
    leave: bool = True,
    part: bool = False,
) -> Any:
    """A tqdm bar with the time that is left, under the name of the present stage.

    Args:
        total: number of units; None if it is not known.
        what: what is done, such as "train".
        unit: of the work, such as "step".
        initial: units that an interrupted run has done.
        disable: draw nothing, such as in all processes but the first.
        leave: whether the bar stays on the terminal at its end.
        part: whether another bar counts this work too, and shows the time that is left of the run.
    """
    place = _PLACE.get()
    bar = tqdm if place.after is None or part else _Bar
    return bar(
        total=total,
        initial=initial,
        unit=unit,
        desc=": ".join(filter(None, (place.text, what))),
        disable=disable or place.quiet,
        leave=leave,
        delay=DELAY,
        dynamic_ncols=True,
    )


class _Bar(tqdm):  # type: ignore[misc]
    """A bar that shows the time that is left of the whole run, too."""

    @property
    def format_dict(self) -> dict[str, Any]:
        """As tqdm's, with the time of the run in the postfix."""
        values: dict[str, Any] = super().format_dict
        done, total = values["n"] - values["initial"], values["total"] or 0
        after = _PLACE.get().after
        if done > 0 and after is not None:
            each = values["elapsed"] / done
            rest = each * max(0, total - values["n"])
            left = f"run: about {duration(rest + after * each * total)} left"
            values["postfix"] = ", ".join(filter(None, (values["postfix"], left)))
        return values


def duration(seconds: float) -> str:
    """Formats a time in two units at most.

    Example:
        >>> [duration(s) for s in (0.4, 42, 100, 3720, 200_000)]
        ['0.4 s', '42 s', '1 min 40 s', '1 h 2 min', '2 d 8 h']
    """
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    for large, small, names in ((86400, 3600, "d h"), (3600, 60, "h min"), (60, 1, "min s")):
        if whole >= large:
            count, rest = divmod(whole, large)
            first, second = names.split()
            return (
                f"{count} {first} {rest // small} {second}"
                if rest // small
                else (f"{count} {first}")
            )
    return f"{whole} s"


class PeakMemory:
    """The largest resident memory of this process inside the block, in bytes."""

    def __init__(self) -> None:
        self.peak = 0
        self._stop = threading.Event()

    def __enter__(self) -> PeakMemory:
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        import psutil

        process = psutil.Process()
        while True:
            self.peak = max(self.peak, process.memory_info().rss)
            if self._stop.wait(0.02):
                return


def stopwatch() -> float:
    """Seconds of a clock that only runs forward."""
    return time.perf_counter()
