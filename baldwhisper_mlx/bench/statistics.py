"""In which order contenders are measured, and how their times are summarized.

A machine gets slower while it works: it warms up, or another program starts. Contenders
therefore take turns, and are compared round by round, so that a slow minute affects both.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

Quartiles = dict[str, float]
"""`median`, `q1` and `q3`."""


def alternate(names: Sequence[str], rounds: int) -> Iterator[tuple[int, str]]:
    """Who is measured next: A B A B ..., as (round from 0, name).

    Raises:
        ValueError: fewer than one round.

    Example:
        >>> [name for _, name in alternate(["A", "B"], 2)]
        ['A', 'B', 'A', 'B']
    """
    if rounds < 1:
        raise ValueError(f"at least one round is needed, not {rounds}")
    return ((number, name) for number in range(rounds) for name in names)


def quartiles(values: Sequence[float]) -> Quartiles:
    """Median and quartiles, interpolated linearly between neighbours (NumPy's default).

    Raises:
        ValueError: no values.

    Example:
        >>> quartiles([4.0, 1.0, 2.0, 3.0])
        {'median': 2.5, 'q1': 1.75, 'q3': 3.25}
    """
    if not values:
        raise ValueError("no quartiles of no values")
    q1, median, q3 = np.quantile(values, (0.25, 0.5, 0.75)).tolist()
    return {"median": median, "q1": q1, "q3": q3}


def speed_ups(seconds: Mapping[str, Sequence[float]], fast: str, slow: str) -> list[float]:
    """How many times faster `fast` was than `slow`, round by round.

    Args:
        seconds: by contender, the times of its rounds, for the same work.
        fast: the contender whose gain it is.
        slow: the one it is compared with.

    Raises:
        ValueError: they were not measured in the same number of rounds.
    """
    if len(seconds[fast]) != len(seconds[slow]):
        raise ValueError(
            f"{fast} has {len(seconds[fast])} rounds and {slow} {len(seconds[slow])}: not pairs"
        )
    return [theirs / ours for ours, theirs in zip(seconds[fast], seconds[slow], strict=True)]
