"""Times of segments: from a part of a recording to the whole, and within the audio.

Standard library only.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Protocol

from baldwhisper_mlx.config import HOP_LENGTH, SAMPLE_RATE, TIME_PRECISION
from baldwhisper_mlx.transcription.segments import Segment

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
    seek = time(segment.seek * HOP_LENGTH / SAMPLE_RATE, is_end=False)
    start, end = _span(segment.start, segment.end, time)
    words = segment.words
    if words:
        moved = []
        for word in words:
            first, last = _span(word.start, word.end, time)
            moved.append(dataclasses.replace(word, start=first, end=last))
        # The same time may be put on either side of a cut, as the start of this or of that.
        if segment.start == words[0].start:
            start = moved[0].start
        if segment.end == words[-1].end:
            end = moved[-1].end
        words = tuple(moved)
    return dataclasses.replace(
        segment, seek=round(seek * SAMPLE_RATE / HOP_LENGTH), start=start, end=end, words=words
    )


def _span(start: float, end: float, time: Time) -> tuple[float, float]:
    """Start and end in the whole, in hundredths of a second.

    What lies at a cut, where its start belongs to the part behind and its end to the part before,
    is put into the part that has more of it.
    """
    first, last = time(start, is_end=False), time(end, is_end=True)
    if first > last:
        before, behind = time(start, is_end=True), time(end, is_end=False)
        if last - before >= behind - first:
            first = before
        else:
            last = behind
    return round(first, 2), round(last, 2)


def within_audio(segments: Sequence[Segment], duration: float) -> tuple[Segment, ...]:
    """The segments with no time behind the end of the audio, words included.

    Timestamps of a model can point past the end. What begins there, too, is put at the end.

    Args:
        segments: in their order.
        duration: of the audio, in seconds.
    """
    # Whole frames of 10 ms: no rounding, to milliseconds or hundredths, exceeds the duration.
    last = round(duration * SAMPLE_RATE) // HOP_LENGTH / FRAMES_PER_SECOND
    result: list[Segment] = []
    for segment in segments:
        if segment.end > last or segment.start >= last:
            earliest = result[-1].end if result else 0.0
            start = segment.start
            if start >= last:
                start = min(earliest, max(0.0, last - TIME_PRECISION))
            segment = dataclasses.replace(segment, start=start, end=min(segment.end, last))
        if segment.words and segment.words[-1].end > last:
            words = (
                dataclasses.replace(word, start=min(word.start, last), end=min(word.end, last))
                for word in segment.words
            )
            segment = dataclasses.replace(segment, words=tuple(words))
        result.append(segment)
    return tuple(result)
