"""In which order contenders are measured, and what is said about the times.

A machine gets slower while it works: it warms up, or somebody else starts something. Contenders
therefore take turns, and are compared round by round, so that a slow minute hits both.
Standard library only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

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


def quantile(values: Sequence[float], fraction: float) -> float:
    """The value below which `fraction` of the sample lies, between neighbours linearly.

    Type 7 of Hyndman and Fan, "Sample Quantiles in Statistical Packages", 1996; NumPy's default.

    Raises:
        ValueError: no values, or a fraction outside 0 to 1.
    """
    if not values or not 0 <= fraction <= 1:
        raise ValueError(f"no quantile {fraction} of {len(values)} values")
    ordered = sorted(values)
    place = fraction * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


def quartiles(values: Sequence[float]) -> Quartiles:
    """Median and quartiles.

    Raises:
        ValueError: no values.

    Example:
        >>> quartiles([4.0, 1.0, 2.0, 3.0])
        {'median': 2.5, 'q1': 1.75, 'q3': 3.25}
    """
    return {
        "median": quantile(values, 0.5),
        "q1": quantile(values, 0.25),
        "q3": quantile(values, 0.75),
    }


def speed_ups(seconds: Mapping[str, Sequence[float]], fast: str, slow: str) -> list[float]:
    """How many times faster `fast` was than `slow`, round by round.

    Args:
        seconds: by contender, the times of its rounds, for the same work.
        fast: the contender whose gain it is.
        slow: the one it is held against.

    Raises:
        ValueError: they were not measured in the same number of rounds.
    """
    if len(seconds[fast]) != len(seconds[slow]):
        raise ValueError(
            f"{fast} has {len(seconds[fast])} rounds and {slow} {len(seconds[slow])}: not pairs"
        )
    return [theirs / ours for ours, theirs in zip(seconds[fast], seconds[slow], strict=True)]
