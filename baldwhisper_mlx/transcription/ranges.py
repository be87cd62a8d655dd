"""Which parts of a recording are transcribed: `clip_timestamps`. Standard library only."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from numbers import Real

from baldwhisper_mlx.config import FRAMES_PER_SECOND

Ranges = str | Sequence[float] | Sequence[tuple[float, float | None]]
"""Ranges as users give them: "0-10,60-"; OpenAI's "0,10,60"; a flat list; or pairs."""

FORMS = (
    'give ranges of seconds as "0-10,60-", as a flat list of starts and ends, or as pairs; without '
    "an end the last one reaches to the end of the recording"
)


def parse_ranges(ranges: Ranges) -> tuple[tuple[float, float], ...]:
    """Starts and ends in seconds; infinity for the end of the recording.

    Args:
        ranges: in any of the forms of `Ranges`; none at all means the whole recording.

    Raises:
        ValueError: not numbers, negative, in the wrong order, overlapping, or empty.

    Example:
        >>> parse_ranges("0-10,60-")
        ((0.0, 10.0), (60.0, inf))
        >>> parse_ranges([0, 10, 60]) == parse_ranges([(0, 10), (60, None)])
        True
    """
    pairs = [(_seconds(start), _seconds(end)) for start, end in _pairs(ranges)]
    for start, end in pairs:
        if math.isinf(start) or not start < end:
            raise ValueError(
                f"clip_timestamps: the range from {start:g} to {end:g} s does not end after it "
                f"starts; {FORMS}"
            )
    for (_, end), (start, _) in itertools.pairwise(pairs):
        if start < end:
            raise ValueError(
                f"clip_timestamps: the range that starts at {start:g} s begins before the one "
                f"before it ends; {FORMS}"
            )
    return tuple(pairs) or ((0.0, math.inf),)


def frames_of(ranges: Sequence[tuple[float, float]], n_frames: int) -> tuple[tuple[int, int], ...]:
    """Ranges in whole mel frames (10 ms) of a recording, cut at its end.

    Args:
        ranges: from `parse_ranges`.
        n_frames: of the recording.

    Returns:
        Start and end of each; ranges without a frame are left out.
    """
    rate = FRAMES_PER_SECOND
    frames = [
        (round(start * rate), min(n_frames, round(min(end * rate, n_frames))))
        for start, end in ranges
    ]
    return tuple((start, end) for start, end in frames if start < end)


class Parts:
    """The parts of a recording that are transcribed, in mel frames (10 ms).

    Args:
        ranges: from `parse_ranges`; None for all of it.
        n_frames: of the recording.
    """

    def __init__(self, ranges: Sequence[tuple[float, float]] | None, n_frames: int) -> None:
        self.n_frames = n_frames
        self.frames = frames_of(ranges or [(0.0, math.inf)], n_frames)
        """First frame of each, and the one behind its last."""

    def end_of(self, seek: int) -> int:
        """Where the part ends that a frame lies in or before; that of the recording behind all."""
        return next((end for _, end in self.frames if seek < end), self.n_frames)

    def next_sound(self, seek: int, after_silence: Callable[[int], int]) -> int:
        """The next frame to transcribe: in a part, and not in digital silence.

        Args:
            seek: the first frame that may be.
            after_silence: from a frame to the end of the silence that begins there.
        """
        for start, end in self.frames:
            if seek < end:
                seek = after_silence(max(seek, start))
                if seek < end:
                    return seek
        return self.n_frames


def ranges_behind(ranges: Sequence[tuple[float, float]], duration: float) -> tuple[str, ...]:
    """A message for each range that begins behind the end of a recording.

    Args:
        ranges: from `parse_ranges`.
        duration: of the recording, in seconds.
    """
    return tuple(
        f"clip_timestamps: the range that starts at {start:g} s is left out: the recording ends at "
        f"{duration:.2f} s"
        for start, _ in ranges
        if start >= duration
    )


def _pairs(ranges: Ranges) -> list[tuple[object, object]]:
    if isinstance(ranges, str):
        items: list[object] = [item.strip() for item in ranges.split(",") if item.strip()]
        if any("-" in str(item)[1:] for item in items):
            return [_split(str(item)) for item in items]
        return _two_by_two(items)
    items = list(ranges)
    pairs = [item for item in items if isinstance(item, Sequence) and not isinstance(item, str)]
    if not pairs:
        return _two_by_two(items)
    if len(pairs) < len(items) or any(len(pair) != 2 for pair in pairs):
        raise ValueError(f"clip_timestamps: {ranges!r} mixes pairs and numbers; {FORMS}")
    return [(pair[0], pair[1]) for pair in pairs]


def _split(item: str) -> tuple[str, str | None]:
    start, dash, end = item.partition("-")
    if not dash:
        raise ValueError(f"clip_timestamps: {item!r} is no range such as 0-10; {FORMS}")
    return start.strip(), end.strip() or None


def _two_by_two(items: Sequence[object]) -> list[tuple[object, object]]:
    padded = [*items, None] if len(items) % 2 else list(items)
    return list(zip(padded[::2], padded[1::2], strict=True))


def _seconds(value: object) -> float:
    """A time; infinity for None."""
    if value is None:
        return math.inf
    try:
        seconds = float(value) if isinstance(value, (str, Real)) else math.nan
    except ValueError:
        seconds = math.nan
    if not seconds >= 0:
        raise ValueError(f"clip_timestamps: {value!r} is no time in seconds; {FORMS}")
    return seconds
