"""Repetition in a sequence of tokens: where it is, and when it is a loop.

Whisper sometimes writes one phrase over and over, with a probability that rises at every turn, so
neither its probability nor, in short outputs, its compression ratio shows it. Timestamps differ
from turn to turn and do not count. loop_guard.py forbids such tokens while decoding. NumPy only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.integer[Any]]

LONGEST_PERIOD = 60
"""Tokens of the longest phrase whose repetition is detected."""
FEWEST = 12
"""Tokens that have to be repeated, and at least one whole phrase, before the guard steps in."""
FEWEST_OF_LOOP = 16
"""Tokens that have to be repeated, and at least two whole phrases, for an output to be a loop."""


def repeats(codes: Ints, period: int) -> tuple[Ints, Ints]:
    """The stretches in which each element equals the one a period before it.

    Args:
        codes: (n,), such as tokens or letters.
        period: elements, at least 1 and less than n.

    Returns:
        Where each stretch ends, and how many elements it has, which may be none.

    Example:
        >>> ends, lengths = repeats(np.array([7, 1, 2, 1, 2, 1, 9]), 2)
        >>> ends[lengths > 0].tolist(), lengths[lengths > 0].tolist()
        ([6], [3])
    """
    # A stretch lies between two places where an element differs from the one a period before.
    breaks = np.flatnonzero(codes[period:] != codes[:-period])
    edges = np.concatenate([[-1], breaks, [len(codes) - period]])
    return edges[1:] + period, np.diff(edges) - 1


def is_loop(tokens: Sequence[int], timestamp_begin: int, before: Sequence[int] = ()) -> bool:
    """Whether a text repeats one phrase: its own, or one that the text before it began.

    Args:
        tokens: ids of the text; timestamps among them do not count.
        timestamp_begin: id of <|0.00|>.
        before: ids of the text that the model was conditioned on.

    Example:
        >>> phrase = list(range(10))
        >>> is_loop(phrase * 2, 50364), is_loop(phrase * 3, 50364)
        (False, True)
        >>> is_loop(phrase, 50364, before=phrase * 2)
        True
    """
    # Two phrases of the previous text are enough: a third, in the new text, makes it a loop.
    previous = [token for token in before if token < timestamp_begin][-2 * LONGEST_PERIOD :]
    ids = np.array(previous + [token for token in tokens if token < timestamp_begin])
    for period in range(1, min(LONGEST_PERIOD, len(ids) - 1) + 1):
        ends, lengths = repeats(ids, period)
        # Tokens of each stretch in the new text: a loop that ended before it is not its fault.
        new = np.minimum(lengths, ends - len(previous))
        if np.any((lengths >= max(2 * period, FEWEST_OF_LOOP)) & (new >= min(period, FEWEST))):
            return True
    return False
