"""Where the language changes within a window, and which part of it is transcribed next.

The window is cut into parts at pauses. Single parts are uncertain, above all short ones, therefore
the likeliest sequence of languages is chosen, in which every change costs something (Viterbi). The
window ends where the first change is; the next one begins there. multilingual.py asks the model.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from baldwhisper_mlx.audio.buffer import Samples
from baldwhisper_mlx.audio.chunking import Span, cut_at_quiet
from baldwhisper_mlx.audio.vad import VadOptions, speech_spans
from baldwhisper_mlx.config import SAMPLE_RATE

CHANGE = 3.0
"""Cost of a change of languages, in nats: about as much as one clear part tells."""
LEAST = 1e-3
"""Least probability that a part may give a language: none decides alone."""
CLEAR = 2.0
"""Seconds of a part from which on its probabilities count in full."""
LONGEST = 5 * SAMPLE_RATE
"""Samples; longer speech without a pause is cut where it is quietest."""
SHORTEST = 3 * SAMPLE_RATE // 2
"""Samples; shorter speech between two pauses belongs to the part across the shorter pause."""
BETWEEN_PAUSES = VadOptions(min_silence_duration=0.2, speech_pad=0.0)


@dataclass(frozen=True)
class Stretch:
    """The beginning of a window, in one language."""

    language: str
    n_samples: int | None
    """How long it is; None for all of the window."""


def parts_of(samples: Samples) -> list[Span]:
    """The speech of a window, in parts between pauses.

    Args:
        samples: of the window, mono at 16 kHz (n,).
    """
    return [
        (start + first, start + last)
        for start, end in without_short(speech_spans(samples, BETWEEN_PAUSES))
        for first, last in cut_at_quiet(samples[start:end], LONGEST)
    ]


def without_short(spans: Sequence[Span], shortest: int = SHORTEST) -> list[Span]:
    """The spans, those that are too short joined with the neighbour that is nearer.

    Args:
        spans: in their order, apart from each other.
        shortest: samples that each has to have, if there is another.

    Example:
        >>> without_short([(0, 20), (25, 30), (90, 120)], shortest=10)
        [(0, 30), (90, 120)]
    """
    joined = list(spans)
    while len(joined) > 1:
        short = [place for place, (start, end) in enumerate(joined) if end - start < shortest]
        if not short:
            break
        gaps = [after[0] - before[1] for before, after in itertools.pairwise(joined)]
        place = short[0]
        neighbours = [gap for gap in (place - 1, place) if 0 <= gap < len(gaps)]
        gap = min(neighbours, key=lambda one: gaps[one])
        joined[gap : gap + 2] = [(joined[gap][0], joined[gap + 1][1])]
    return joined


def likeliest_sequence(
    probabilities: npt.NDArray[np.float32],
    seconds: Sequence[float],
    present: int | None,
    *,
    change: float = CHANGE,
) -> list[int]:
    """The language of every part, if each change costs something.

    The sequence has the highest sum of weighted log-probabilities, less `change` for every change,
    one from the present language to that of the first part included.

    Args:
        probabilities: of the languages in each part, (parts, languages).
        seconds: length of each part; short ones count less.
        present: language before the first part; None for none.
        change: cost in nats.

    Returns:
        A language for each part, as an index.

    Example:
        >>> unsure = np.array([[0.9, 0.1], [0.3, 0.7], [0.9, 0.1]])
        >>> likeliest_sequence(unsure, [3.0, 3.0, 3.0], present=None)
        [0, 0, 0]
    """
    weights = np.minimum(np.asarray(seconds, np.float64) / CLEAR, 1.0)[:, None]
    scores = weights * np.log(np.maximum(probabilities.astype(np.float64), LEAST))
    if not len(scores):
        return []
    total = scores[0].copy()
    if present is not None:
        total -= change * (np.arange(scores.shape[1]) != present)
    came_from: list[npt.NDArray[np.int64]] = []
    for row in scores[1:]:
        best = int(total.argmax())
        changed = total < total[best] - change
        came_from.append(np.where(changed, best, np.arange(len(total))))
        total = np.where(changed, total[best] - change, total) + row
    sequence = [int(total.argmax())]
    for before in reversed(came_from):
        sequence.append(int(before[sequence[-1]]))
    return sequence[::-1]


def first_stretch(
    parts: Sequence[Span], sequence: Sequence[int], languages: Sequence[str]
) -> Stretch:
    """What is transcribed next: all parts before the first change.

    Args:
        parts: of a window, in samples from its start, at least one.
        sequence: language of each, as an index.
        languages: codes.
    """
    for number in range(1, len(parts)):
        if sequence[number] != sequence[0]:
            pause = parts[number - 1][1], parts[number][0]
            return Stretch(languages[sequence[0]], sum(pause) // 2)
    return Stretch(languages[sequence[0]], None)
