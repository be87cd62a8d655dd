"""The intervals hold the truth as often as they say, and pairing does what it is for."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from baldwhisper_mlx.evaluation import bootstrap
from baldwhisper_mlx.evaluation.bootstrap import (
    Bootstrap,
    Estimate,
    accuracy_ratio,
    difference,
    divide,
    error_rate,
    interval,
    retention,
)

Counts = np.ndarray[Any, np.dtype[np.int64]]

# How likely a word is wrong, in utterances that are easy, plain or hard for both models.
DIFFICULTY = np.array([0.01, 0.05, 0.3])
SHARES = np.array([0.5, 0.3, 0.2])
WORSE = 1.5
TRUE_WER = float(DIFFICULTY @ SHARES)


def simulate(size: int, seed: int) -> Counts:
    """Words, errors of a teacher, and errors of a student that is worse by `WORSE`; (N, 3)."""
    rng = np.random.default_rng(seed)
    words = rng.integers(3, 40, size)
    wrong = rng.choice(DIFFICULTY, size, p=SHARES)
    errors = [rng.binomial(words, wrong * factor) for factor in (1.0, WORSE)]
    return np.column_stack([words, *errors])


def holds(estimate: Estimate, truth: float) -> bool:
    assert estimate.low is not None
    assert estimate.high is not None
    return estimate.low <= truth <= estimate.high


def test_intervals_cover_the_truth_as_often_as_they_say() -> None:
    repetitions, covered = 500, np.zeros(3)
    for seed in range(repetitions):
        drawn = Bootstrap(simulate(100, seed), samples=500, seed=seed)
        covered += [
            holds(drawn.estimate(error_rate, 1, 0), TRUE_WER),
            holds(drawn.estimate(retention, 1, 2), 1 / WORSE),
            holds(drawn.estimate(difference, 1, 2, 0), (WORSE - 1) * TRUE_WER),
        ]
    assert (covered >= 0.92 * repetitions).all(), covered
    assert (covered <= 0.98 * repetitions).all(), covered


def width(bounds: tuple[float | None, float | None]) -> float:
    low, high = bounds
    assert low is not None
    assert high is not None
    return high - low


def test_a_paired_interval_is_narrower() -> None:
    counts = simulate(200, 1)
    paired = Bootstrap(counts).estimate(difference, 1, 2, 0)
    teacher, student = (Bootstrap(counts, seed=seed).sums for seed in (0, 1))
    apart = error_rate(student[2], student[0]) - error_rate(teacher[1], teacher[0])
    assert width((paired.low, paired.high)) < 0.7 * width(interval(apart))


def test_identical_models_are_exactly_equal() -> None:
    words, _, _ = simulate(40, 2).T
    errors = np.arange(40) == 7  # so few that many draws have none at all
    drawn = Bootstrap(np.column_stack([words, errors, errors]))
    assert (drawn.sums[1] == 0).any()
    assert drawn.estimate(retention, 1, 2) == Estimate(1.0, 1.0, 1.0)
    assert drawn.estimate(accuracy_ratio, 1, 2, 0) == Estimate(1.0, 1.0, 1.0)
    assert drawn.estimate(difference, 1, 2, 0) == Estimate(0.0, 0.0, 0.0)


def test_values_are_those_of_the_whole() -> None:
    drawn = Bootstrap([[10, 1, 2], [30, 3, 6]])
    assert drawn.estimate(error_rate, 2, 0).value == pytest.approx(8 / 40)
    assert drawn.estimate(retention, 1, 2).value == pytest.approx(0.5)
    assert drawn.estimate(accuracy_ratio, 1, 2, 0).value == pytest.approx(0.8 / 0.9)
    assert drawn.estimate(difference, 1, 2, 0).value == pytest.approx(0.1)


@pytest.mark.parametrize("chunk", [1, 100, 2**22])
def test_draws_are_whole_utterances_however_many_at_a_time(
    chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = simulate(30, 3)
    drawn = np.random.default_rng(5).integers(30, size=(70, 30))
    expected = counts[drawn].sum(axis=1)
    monkeypatch.setattr(bootstrap, "_CHUNK", chunk)
    found = Bootstrap(counts, samples=70, seed=5)
    np.testing.assert_array_equal(found.sums.T, expected)
    np.testing.assert_array_equal(found.totals, counts.sum(axis=0))


def test_what_cannot_be_said_is_none_and_no_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        silent = Bootstrap([[0, 2], [0, 1]]).estimate(error_rate, 1, 0)
        assert silent == Estimate(None, None, None)
        assert Bootstrap([[0, 0]]).estimate(error_rate, 1, 0) == Estimate(None, None, None)
        # A student without an error: its teacher's rate is infinitely larger, or the draw had none.
        perfect = Bootstrap([[10, 1, 0], [10, 0, 0], [10, 0, 0]])
        assert perfect.estimate(retention, 1, 2) == Estimate(None, 1.0, None)
        assert perfect.estimate(retention, 2, 1).value == 0.0
        # A teacher with an error for every word has no accuracy to compare with.
        useless = Bootstrap([[10, 10, 5], [10, 12, 5]])
        assert useless.estimate(accuracy_ratio, 1, 2, 0) == Estimate(None, None, None)
        # Draws in which nothing is said do not count.
        half = Bootstrap([[0, 0, 0], [10, 1, 2]])
        assert half.estimate(error_rate, 1, 0) == Estimate(0.1, 0.1, 0.1)
        assert half.estimate(difference, 1, 2, 0) == Estimate(0.1, 0.1, 0.1)
        assert half.estimate(accuracy_ratio, 1, 2, 0).low == pytest.approx(0.8 / 0.9)


def test_rounding_for_reports() -> None:
    assert Estimate(0.12345678, None, 1.0).to_dict() == {
        "value": 0.123457,
        "interval": [None, 1.0],
    }
    assert Estimate(None, 0.123, 0.456).to_dict(1) == {"value": None, "interval": [0.1, 0.5]}


@pytest.mark.parametrize("counts", [[], [1, 2, 3], np.zeros((0, 2))])
def test_no_utterances_are_refused(counts: Any) -> None:
    with pytest.raises(ValueError, match="at least one utterance"):
        Bootstrap(counts)


@settings(max_examples=50)
@given(
    st.lists(
        st.integers(1, 30).flatmap(
            lambda words: st.tuples(st.just(words), st.integers(0, words), st.integers(0, words))
        ),
        min_size=1,
        max_size=12,
    )
)
def test_an_interval_lies_within_what_single_utterances_have(
    rows: list[tuple[int, int, int]],
) -> None:
    drawn = Bootstrap(rows, samples=50)
    rates = [errors / words for words, errors, _ in rows]
    found = drawn.estimate(error_rate, 1, 0)
    assert found.value is not None
    assert found.low is not None
    assert found.high is not None
    assert min(rates) - 1e-9 <= found.low <= found.high <= max(rates) + 1e-9
    assert min(rates) - 1e-9 <= found.value <= max(rates) + 1e-9
    ratio, inverse = drawn.estimate(retention, 1, 2), drawn.estimate(retention, 2, 1)
    if ratio.value and inverse.value:
        assert math.isclose(ratio.value * inverse.value, 1.0)


def test_division() -> None:
    assert divide(1, 2) == 0.5
    assert math.isinf(divide(1, 0))
    assert math.isnan(divide(0, 0))
    assert divide(0, 0, both_zero=1.0) == 1.0
    np.testing.assert_array_equal(divide([1, 0], [4, 5]), [0.25, 0.0])
