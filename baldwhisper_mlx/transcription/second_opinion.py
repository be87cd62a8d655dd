"""A second opinion on text that may have been made up: does the speech detector find speech there?

Whisper writes the text that it was conditioned on over music and noise: the prompt, hotwords, or
the sentence before. Such text is probable, so the test for silence (fallback.py) does not reject
it. Silero's detector decides instead, but only on a window that Whisper itself doubts, or on a
segment that is a copy, consists of hotwords or is far too long for its text. On others it would
take time, and it misses some singing.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from functools import cached_property

from baldwhisper_mlx.audio.buffer import Samples
from baldwhisper_mlx.audio.vad import speech_spans
from baldwhisper_mlx.config import HOP_LENGTH, SAMPLE_RATE
from baldwhisper_mlx.output.segment import Segment

FEWEST_COPIED = 4
"""Text tokens that a segment has to have in common with the previous text to be a copy of it."""
LONG = 10.0
"""Seconds from which on a segment may be too long for its text."""
FEWEST_PER_SECOND = 1.0
"""Text tokens per second; speech has three to five."""


class WindowSpeech:
    """Where somebody speaks in a window; the detector runs when it is first asked.

    Args:
        samples: of the recording, mono at 16 kHz (n,).
        seek: mel frame (10 ms) at which the window starts.
        n_frames: mel frames of the window.
    """

    def __init__(self, samples: Samples, seek: int, n_frames: int) -> None:
        self._begin = seek * HOP_LENGTH
        self._samples = samples[self._begin : (seek + n_frames) * HOP_LENGTH]

    @cached_property
    def spans(self) -> list[tuple[float, float]]:
        """Spans of speech in seconds of the recording."""
        return [
            ((self._begin + start) / SAMPLE_RATE, (self._begin + end) / SAMPLE_RATE)
            for start, end in speech_spans(self._samples)
        ]

    def between(self, start: float, end: float) -> tuple[float, float] | None:
        """From the first to the last speech between two times; None if there is none."""
        inside = [
            (max(start, first), min(end, last))
            for first, last in self.spans
            if first < end and last > start
        ]
        return (inside[0][0], inside[-1][1]) if inside else None


def checked(
    segments: Sequence[Segment],
    previous: Sequence[int],
    speech: WindowSpeech,
    *,
    text_end: int,
    hotwords: str | None = None,
) -> list[Segment]:
    """The segments of a window without copies of the previous text where nobody speaks.

    What is far too long for its text is shortened to the speech in it.

    Args:
        segments: of the window.
        previous: tokens of the text that the window was conditioned on, and of a prefix.
        speech: of the window.
        text_end: ids from there on are no text.
        hotwords: a segment without any other word is a copy of them, however short.
    """
    text_before = [token for token in previous if token < text_end]
    names = _words(hotwords or "")
    result = []
    for segment in segments:
        text = [token for token in segment.tokens if token < text_end]
        length = segment.end - segment.start
        too_long = length > LONG and len(text) < FEWEST_PER_SECOND * length
        copied = len(text) >= FEWEST_COPIED and _contains(text_before, text)
        copied = copied or (bool(names) and _words(segment.text) <= names)
        if text and (too_long or copied):
            spoken = speech.between(segment.start, segment.end)
            if spoken is None and copied:
                continue
            if spoken is not None and too_long and segment.words is None:
                segment = dataclasses.replace(segment, start=spoken[0], end=spoken[1])
        result.append(segment)
    return result


def _words(text: str) -> set[str]:
    """The words of a text, in lower case and without punctuation."""
    return set(re.findall(r"\w+", text.casefold()))


def _contains(tokens: Sequence[int], run: Sequence[int]) -> bool:
    """Whether some tokens in a row are the run."""
    return any(
        tokens[start : start + len(run)] == run for start in range(len(tokens) - len(run) + 1)
    )
