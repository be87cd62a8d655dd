"""Where a recording is cut: speech without the pauses, and chunks that end where it is quiet."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from baldwhisper_mlx.audio.buffer import SampleBuffer, Samples, blocks
from baldwhisper_mlx.config import SAMPLE_RATE

Span = tuple[int, int]
"""First sample, and the one after the last."""

_LEVEL_HOP = SAMPLE_RATE // 100
"""Samples from one level to the next: 10 ms."""

_LEVEL_WIDTH = 3 * _LEVEL_HOP
_QUIET_WIDTH = 20  # times 10 ms
_SEARCH = 5 * SAMPLE_RATE
_BLOCK_HOPS = 2000


@dataclass(frozen=True)
class Joined:
    """The speech of a recording without the pauses, and the map from its times to the recording's.

    Made by `join_speech`.
    """

    samples: Samples
    """The spans, concatenated."""
    spans: tuple[Span, ...]
    """In the recording."""
    pad: int = 0
    """Samples without speech at either end of a span. What ends within the first of them belongs
    to the span before, and what begins within the last of them to the next span."""

    def restore(self, seconds: float, *, is_end: bool, middle: float | None = None) -> float:
        """A time in the joined speech as a time in the recording, both in seconds.

        Args:
            seconds: in the joined speech.
            is_end: whether something ends there, rather than begins.
            middle: of a word that starts or ends there, in the joined speech; the word stays in
                the span in which its middle lies, so that it holds no pause.
        """
        if not self.spans:
            return seconds
        position, before = round(seconds * SAMPLE_RATE), 0
        decisive = position if middle is None else round(middle * SAMPLE_RATE)
        pad = 0 if middle is not None else self.pad if is_end else -self.pad
        for start, end in self.spans[:-1]:
            length = end - start
            if decisive < before + length + pad + int(is_end and middle is None):
                return (start + min(max(0, position - before), length)) / SAMPLE_RATE
            before += length
        start, end = self.spans[-1]
        return min(start + max(0, position - before), end) / SAMPLE_RATE


def join_speech(samples: Samples, spans: Sequence[Span], pad: float = 0.0) -> Joined:
    """Concatenates spans of a recording.

    Args:
        samples: mono at 16 kHz (n,).
        spans: in their order.
        pad: seconds without speech at either end of a span; see `Joined.pad`.
    """
    joined = SampleBuffer()
    for start, end in spans:
        for block in blocks(samples[start:end], _BLOCK_HOPS * _LEVEL_HOP):
            joined.add(block)
    return Joined(joined.samples(), tuple(spans), round(pad * SAMPLE_RATE))


def chunks_of(samples: Samples, spans: Sequence[Span], longest: int) -> list[Span]:
    """Groups spans of speech into chunks of at most `longest` samples.

    A chunk reaches from the start of its first span to the end of its last one. A span that is
    longer than `longest` is cut where it is quietest.
    """
    chunks: list[Span] = []
    for start, end in spans:
        if chunks and end - chunks[-1][0] <= longest:
            chunks[-1] = (chunks[-1][0], end)
        else:
            parts = cut_at_quiet(samples[start:end], longest)
            chunks += [(start + first, start + last) for first, last in parts]
    return chunks


def cut_at_quiet(samples: Samples, longest: int) -> list[Span]:
    """Cuts a recording into chunks of at most `longest` samples.

    Each cut is in the quietest 0.2 s of the last third that a chunk can have.
    """
    if len(samples) <= longest:
        return [(0, len(samples))] if len(samples) else []
    level = _smooth_levels(samples)
    chunks, start = [], 0
    while len(samples) - start > longest:
        first, last = (start + 2 * longest // 3) // _LEVEL_HOP, (start + longest) // _LEVEL_HOP
        quietest = first + int(np.argmin(level[first : max(last, first + 1)]))
        cut = min(max(quietest * _LEVEL_HOP, start + 1), start + longest)
        chunks.append((start, cut))
        start = cut
    return [*chunks, (start, len(samples))]


def equal_parts(samples: Samples, count: int) -> list[Span]:
    """Cuts a recording into `count` parts of about the same length.

    Each cut is in the quietest 0.2 s within 5 s, or a third of a part, of where a part of exactly
    that length would end.
    """
    level, size = _smooth_levels(samples), len(samples) / count
    reach = min(_SEARCH, size / 3)
    cuts = [0]
    for number in range(1, count):
        first = math.ceil((number * size - reach) / _LEVEL_HOP)
        last = math.floor((number * size + reach) / _LEVEL_HOP)
        cuts.append((first + int(np.argmin(level[first : last + 1]))) * _LEVEL_HOP)
    return list(itertools.pairwise([*cuts, len(samples)]))


def _smooth_levels(samples: Samples) -> npt.NDArray[np.float64]:
    """Loudness of 0.2 s around every 10 ms."""
    return np.convolve(_levels(samples), np.ones(_QUIET_WIDTH), mode="same")


def _levels(samples: Samples) -> npt.NDArray[np.float32]:
    """Root mean square of 30 ms around every 10 ms, (n / 160, rounded up)."""
    n = -(-len(samples) // _LEVEL_HOP)
    # Power of every 10 ms, with one place of silence before and after.
    power = np.zeros(n + 2, np.float32)
    done = 1
    for block in blocks(samples, _BLOCK_HOPS * _LEVEL_HOP):
        sums = np.add.reduceat(np.square(block), np.arange(0, len(block), _LEVEL_HOP))
        power[done : done + len(sums)] = sums
        done += len(sums)
    total: npt.NDArray[np.float32] = power[:n] + power[1 : n + 1] + power[2 : n + 2]
    rms: npt.NDArray[np.float32] = np.sqrt(total / np.float32(_LEVEL_WIDTH))
    return rms
