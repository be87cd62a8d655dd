"""Times of segments: from a part of a recording to the whole, and within the audio.

Standard library only.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Protocol

from baldwhisper_mlx.config import FRAMES_PER_SECOND, HOP_LENGTH, SAMPLE_RATE, TIME_PRECISION
from baldwhisper_mlx.output.segment import Segment, Word


class Time(Protocol):
    """Maps seconds in a part of a recording to seconds in the whole.

    `is_end` says whether something ends there, rather than begins; `middle` is that of a word which
    starts or ends there, and which a cut does not divide.
    """

    def __call__(self, seconds: float, *, is_end: bool, middle: float | None = None) -> float: ...


def shifted(offset: float, seconds: float, *, is_end: bool, middle: float | None = None) -> float:
    """With an offset in seconds, the `Time` of a part that begins there and is not cut."""
    return offset + seconds


def _retimed_word(word: Word, time: Time) -> Word:
    middle = (word.start + word.end) / 2
    start = time(word.start, is_end=False, middle=middle)
    end = time(word.end, is_end=True, middle=middle)
    return dataclasses.replace(word, start=round(start, 2), end=round(end, 2))


def retimed(segment: Segment, time: Time) -> Segment:
    """A segment of a part of a recording, with the times of the whole in hundredths of a second.

    Args:
        segment: with the times of the part.
        time: from the part's times to those of the whole.
    """
    seek = time(segment.seek * HOP_LENGTH / SAMPLE_RATE, is_end=False)
    start, end = time(segment.start, is_end=False), time(segment.end, is_end=True)
    if start > end:  # it lies at a cut: starts there belong to what follows, ends to what precedes
        start = time(segment.start, is_end=True)
    old = words = segment.words
    if old:
        words = tuple(_retimed_word(word, time) for word in old)
        # At a cut a segment and its words are put on the same side.
        start = words[0].start if segment.start == old[0].start else start
        end = words[-1].end if segment.end == old[-1].end else end
    return dataclasses.replace(
        segment,
        seek=round(seek * SAMPLE_RATE / HOP_LENGTH),
        start=round(start, 2),
        end=round(end, 2),
        words=words,
    )


def within_audio(
    segments: Sequence[Segment],
    duration: float,
    *,
    begin: float = 0.0,
    previous: Segment | None = None,
) -> list[Segment]:
    """The segments with no time behind the end of the audio, words included.

    Timestamps of a model can point past the end. What begins there, too, is put at the end.

    Args:
        segments: in their order.
        duration: of the audio, in seconds.
        begin: earliest time of a segment that is put at the end.
        previous: the segment before them, with times within the audio.
    """
    # Whole frames of 10 ms: no rounding, to milliseconds or hundredths, exceeds the duration.
    last = round(duration * SAMPLE_RATE) // HOP_LENGTH / FRAMES_PER_SECOND
    result: list[Segment] = []
    for segment in segments:
        if segment.end > last or segment.start >= last:
            start = segment.start
            if start >= last:
                earliest, latest = (previous.start, previous.end) if previous else (begin, begin)
                start = max(earliest, min(latest, last - TIME_PRECISION))
            segment = dataclasses.replace(segment, start=start, end=min(segment.end, last))
        if segment.words and segment.words[-1].end > last:
            words = (
                dataclasses.replace(word, start=min(word.start, last), end=min(word.end, last))
                for word in segment.words
            )
            segment = dataclasses.replace(segment, words=tuple(words))
        result.append(segment)
        previous = segment
    return result
