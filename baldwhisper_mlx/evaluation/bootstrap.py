"""Confidence intervals of error rates: bootstrap over utterances.

Utterances are drawn with replacement, as many as there are, and the rate is computed anew; the
middle 95 % of 10,000 such rates are the interval (Bisani and Ney, "Bootstrap estimates for
confidence intervals in ASR performance evaluation", ICASSP 2004). Two models are compared on the
same draws, so that an utterance that is hard for both does not blur their difference.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

SAMPLES = 10_000
LEVEL = 0.95

Array = npt.NDArray[np.float64]

_CHUNK = 2**22
"""Numbers drawn at a time, so that memory does not grow with the data."""


@dataclass(frozen=True)
class Estimate:
    """A value and its interval; None where there is none, as in a ratio to zero."""

    value: float | None
    low: float | None
    high: float | None

    def to_dict(self, digits: int = 6) -> dict[str, Any]:
        """`value` and `interval`, rounded, as reports give them."""
        value, low, high = (
            None if number is None else round(number, digits)
            for number in (self.value, self.low, self.high)
        )
        return {"value": value, "interval": [low, high]}


class Bootstrap:
    """Counts of utterances, and their sums in every draw.

    Args:
        counts: (N, K), a row for each of N utterances: errors, words, errors of another model...
        samples: draws.
        seed: of the draws; the same seed and N give the same draws.

    Raises:
        ValueError: no utterances.

    Example:
        >>> errors_and_words = np.array([[1, 10], [0, 7], [2, 12]])
        >>> Bootstrap(errors_and_words).estimate(error_rate, 0, 1)
        Estimate(value=0.103448..., low=0.0, high=0.166666...)
    """

    def __init__(self, counts: npt.ArrayLike, *, samples: int = SAMPLES, seed: int = 0) -> None:
        values = np.asarray(counts, np.float64)
        if values.ndim != 2 or not len(values):
            raise ValueError(f"counts of at least one utterance (N, K) are needed: {values.shape}")
        self.totals: Array = values.sum(axis=0)
        self.sums: Array = np.concatenate(list(_draws(values, samples, seed))).T

    def estimate(self, statistic: Callable[..., Any], *columns: int) -> Estimate:
        """A statistic of some columns' sums, and its interval.

        Args:
            statistic: of as many arrays of one shape as there are columns, element by element.
            columns: of the counts.
        """
        value = float(statistic(*self.totals[list(columns)]))
        low, high = interval(statistic(*self.sums[list(columns)]))
        return Estimate(value if np.isfinite(value) else None, low, high)


def _draws(values: Array, samples: int, seed: int) -> Any:
    """Sums (n, K) of some draws at a time, as many as make `samples`."""
    rng = np.random.default_rng(seed)
    size = len(values)
    at_once = max(1, _CHUNK // size)
    for start in range(0, samples, at_once):
        count = min(at_once, samples - start)
        drawn = rng.integers(size, size=(count, size))  # utterances of each draw, with repetition
        # numbers of different draws must differ, so that one bincount serves all of them
        drawn += size * np.arange(count)[:, None]
        # how often each utterance is in each draw, (count, size)
        times = np.bincount(drawn.ravel(), minlength=count * size).reshape(count, size)
        yield times @ values


def interval(values: npt.ArrayLike, level: float = LEVEL) -> tuple[float | None, float | None]:
    """The middle part of bootstrap values; None for a bound that is infinite.

    Args:
        values: (S,), one for every draw. Undefined ones (NaN), of draws without any word, do not
            count; if all are, neither bound is known.
        level: how much of them lies between the bounds.
    """
    draws = np.asarray(values, np.float64)
    draws = draws[~np.isnan(draws)]
    if not draws.size:
        return None, None
    tails = [(1 - level) / 2, (1 + level) / 2]
    # Between infinite values nothing can be interpolated.
    method: Any = "linear" if np.isfinite(draws).all() else "inverted_cdf"
    low, high = (float(bound) for bound in np.quantile(draws, tails, method=method))
    return low if np.isfinite(low) else None, high if np.isfinite(high) else None


def divide(numerator: Any, denominator: Any, *, both_zero: float = np.nan) -> Any:
    """Elementwise quotient; infinite or `both_zero`, without a warning, where it divides by 0."""
    numerator, denominator = np.asarray(numerator, float), np.asarray(denominator, float)
    with np.errstate(divide="ignore", invalid="ignore"):
        quotient = numerator / denominator
    return np.where((numerator == 0) & (denominator == 0), both_zero, quotient)


def error_rate(errors: Any, total: Any) -> Any:
    """Errors over words or characters of the references; undefined if there are none."""
    return divide(errors, total)


def retention(baseline_errors: Any, errors: Any) -> Any:
    """WER of the baseline over that of the model, on the same utterances.

    What Sy et al. (arXiv 2510.08599) call the performance a student retains of its teacher: 1 is
    all of it. As the words are the same for both, it is the ratio of the errors. 1 if neither
    makes any.
    """
    return divide(baseline_errors, errors, both_zero=1.0)


def accuracy_ratio(baseline_errors: Any, errors: Any, total: Any) -> Any:
    """(1 - WER) of the model over that of the baseline; infinite if the latter has none left."""
    baseline = 1 - error_rate(baseline_errors, total)
    ratio = divide(1 - error_rate(errors, total), baseline)
    return np.where(baseline <= 0, np.inf, ratio)


def difference(baseline_errors: Any, errors: Any, total: Any) -> Any:
    """WER of the model less that of the baseline."""
    return divide(np.asarray(errors, float) - np.asarray(baseline_errors, float), total)
