"""Times of segments: from a part of a recording to the whole, and within the audio.

Standard library only.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Protocol

from baldwhisper_mlx.config import HOP_LENGTH, SAMPLE_RATE, TIME_PRECISION
from baldwhisper_mlx.output.segment import Segment

FRAMES_PER_SECOND = SAMPLE_RATE // HOP_LENGTH


class Time(Protocol):
    """Maps seconds in a part of a recording to seconds in the whole.

    `is_end` says whether something ends there, rather than begins.
    """

    def __call__(self, seconds: float, *, is_end: bool) -> float: ...


def retimed(segment: Segment, time: Time) -> Segment:
    """A segment of a part of a recording, with the times of the whole, words included.

    Args:
        segment: with the times of the part.
        time: from the part's times to those of the whole.
    """
    words = segment.words and tuple(
        dataclasses.replace(
            word,
            start=round(time(word.start, is_end=False), 2),
            end=round(time(word.end, is_end=True), 2),
        )
        for word in segment.words
    )
    seek = time(segment.seek * HOP_LENGTH / SAMPLE_RATE, is_end=False)
    return dataclasses.replace(
        segment,
        seek=round(seek * SAMPLE_RATE / HOP_LENGTH),
        start=time(segment.start, is_end=False),
        end=time(segment.end, is_end=True),
        words=words,
    )


def within_audio(
    segments: Sequence[Segment], duration: float, *, previous: Segment | None = None
) -> list[Segment]:
    """The segments with no time behind the end of the audio, words included.

    Timestamps of a model can point past the end. What begins there, too, is put at the end.

    Args:
        segments: in their order.
        duration: of the audio, in seconds.
        previous: the segment before them, with times within the audio.
    """
    # Whole frames of 10 ms: no rounding, to milliseconds or hundredths, exceeds the duration.
    last = round(duration * SAMPLE_RATE) // HOP_LENGTH / FRAMES_PER_SECOND
    result: list[Segment] = []
    for segment in segments:
        if segment.end > last or segment.start >= last:
            start = segment.start
            if start >= last:
                earliest, latest = (previous.start, previous.end) if previous else (0.0, 0.0)
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
