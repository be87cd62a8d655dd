"""Where a sequence repeats what came shortly before. NumPy only."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.integer[Any]]


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
