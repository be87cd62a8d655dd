"""Where to cut a recording: speech without the pauses, chunks that end where it is quiet."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from baldwhisper_mlx.audio.buffer import Collector, Samples, blocks
from baldwhisper_mlx.config import SAMPLE_RATE

Span = tuple[int, int]
"""First sample, and the one after the last."""

_BLOCK_HOPS = 2000
_LEVEL_HOP = SAMPLE_RATE // 100
_LEVEL_WIDTH = 3 * _LEVEL_HOP
_QUIET_WIDTH = 20  # times 10 ms


@dataclass(frozen=True)
class Joined:
    """Speech without what lies between, and the way back to the recording's times."""

    samples: Samples
    spans: tuple[Span, ...]
    pad: int = 0
    """Samples without speech at either end of a span. What ends in the first of them ended in the
    span before, and what begins in the last of them begins in the next."""

    def restore(self, seconds: float, *, is_end: bool) -> float:
        """Seconds in the recording of a time in the joined speech.

        Args:
            seconds: in the joined speech.
            is_end: whether something ends there.
        """
        position, before = round(seconds * SAMPLE_RATE), 0
        for start, end in self.spans[:-1]:
            length = end - start
            limit = before + length + (self.pad if is_end else -self.pad)
            if position < limit + int(is_end):
                return (start + min(max(0, position - before), length)) / SAMPLE_RATE
            before += length
        if not self.spans:
            return seconds
        start, end = self.spans[-1]
        return min(start + max(0, position - before), end) / SAMPLE_RATE


def join_speech(samples: Samples, spans: Sequence[Span], pad: float = 0.0) -> Joined:
    """The spans of a recording, one after the other; `pad` in seconds, see `Joined.pad`."""
    joined = Collector()
    for start, end in spans:
        for block in blocks(samples[start:end], _BLOCK_HOPS * _LEVEL_HOP):
            joined.add(block)
    return Joined(joined.samples(), tuple(spans), round(pad * SAMPLE_RATE))


def chunks_of(samples: Samples, spans: Sequence[Span], longest: int) -> list[Span]:
    """Neighbouring spans as chunks of at most `longest` samples, cut where nobody speaks.

    A chunk reaches from the start of its first span to the end of its last. A span that is longer
    by itself is cut where it is quietest.
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
    """All of a recording in chunks of at most `longest` samples, cut where it is quietest.

    The quietest 0.2 s are looked for in the last third of what a chunk can hold.
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
    """All of a recording in `count` parts of about one length, cut where it is quietest.

    The quietest 0.2 s are looked for within 5 s, or a third of a part, of where a part would end.
    """
    level, size = _smooth_levels(samples), len(samples) / count
    reach = min(5 * SAMPLE_RATE, size / 3)
    cuts = [0]
    for number in range(1, count):
        first = math.ceil((number * size - reach) / _LEVEL_HOP)
        last = math.floor((number * size + reach) / _LEVEL_HOP)
        cuts.append((first + int(np.argmin(level[first : last + 1]))) * _LEVEL_HOP)
    return list(itertools.pairwise([*cuts, len(samples)]))


def _smooth_levels(samples: Samples) -> npt.NDArray[np.float64]:
    """Loudness of 0.2 s around every 10 ms."""
    return np.convolve(levels(samples), np.ones(_QUIET_WIDTH), mode="same")


def levels(samples: Samples) -> npt.NDArray[np.float32]:
    """Root mean square of 30 ms around every 10 ms (n,)."""
    n = -(-len(samples) // _LEVEL_HOP)
    power = np.zeros(n + 2, np.float32)
    done = 1
    for block in blocks(samples, _BLOCK_HOPS * _LEVEL_HOP):
        sums = np.add.reduceat(np.square(block), np.arange(0, len(block), _LEVEL_HOP))
        power[done : done + len(sums)] = sums
        done += len(sums)
    mean: npt.NDArray[np.float32] = power[:n] + power[1 : n + 1] + power[2 : n + 2]
    levels: npt.NDArray[np.float32] = np.sqrt(mean / np.float32(_LEVEL_WIDTH))
    return levels
