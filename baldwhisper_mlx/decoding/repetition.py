"""Where a sequence repeats what came shortly before. NumPy only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.integer[Any]]

LONGEST_PERIOD = 60
"""Tokens of the longest phrase whose repetition is seen."""
FEWEST = 12
"""The guard forbids to go on when a phrase, and no less than so many tokens, have come again."""
FEWEST_OF_LOOP = 16
"""A loop is a phrase that comes again twice, and no less than so many tokens of it."""


def repeats(codes: Ints, period: int) -> tuple[Ints, Ints]:
    """Stretches, without a break, in which each element equals the one a period before.

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
    breaks = np.flatnonzero(codes[period:] != codes[:-period])
    edges = np.concatenate([[-1], breaks, [len(codes) - period]])
    return edges[1:] + period, np.diff(edges) - 1


def is_loop(tokens: Sequence[int], timestamp_begin: int, before: Sequence[int] = ()) -> bool:
    """Whether a text is caught in a phrase that it repeats, or that the text before it began.

    Args:
        tokens: ids of the text; timestamps among them do not count.
        timestamp_begin: id of <|0.00|>.
        before: ids of the text that the model was told came before.

    Example:
        >>> said = list(range(10))
        >>> is_loop(said * 2, 50364), is_loop(said * 3, 50364), is_loop(said, 50364, said * 2)
        (False, True, True)
    """
    told = [token for token in before if token < timestamp_begin][-2 * LONGEST_PERIOD :]
    ids = np.array(told + [token for token in tokens if token < timestamp_begin])
    for period in range(1, min(LONGEST_PERIOD, len(ids) - 1) + 1):
        ends, runs = repeats(ids, period)
        new = np.minimum(runs, ends - len(told))
        if np.any((runs >= max(2 * period, FEWEST_OF_LOOP)) & (new >= min(period, FEWEST))):
            return True
    return False
