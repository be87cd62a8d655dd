"""The figures of benchmarks/accuracy/word_times.py, from words whose times are known."""

from __future__ import annotations

import pytest

from benchmarks.accuracy.word_times import differences, plain, summary


def test_words_that_both_have_are_compared_in_order() -> None:
    ours = [("the", 0.0, 0.2), ("cat", 0.2, 0.6), ("sat", 0.7, 1.0), ("the", 1.0, 1.1)]
    theirs = [("the", 0.1, 0.2), ("dog", 0.2, 0.5), ("sat", 0.6, 1.0), ("the", 1.0, 1.3)]
    found = differences(ours, theirs)
    assert [pytest.approx(pair) for pair in found] == [(-0.1, 0.0), (0.1, 0.0), (0.0, -0.2)]


def test_summary() -> None:
    row = summary([(-0.1, 0.0), (0.02, 0.0), (0.08, -0.2)])
    assert row["words"] == 3
    assert row["start"]["median"] == pytest.approx(0.08)
    assert row["start"]["near"] == pytest.approx(2 / 3)
    assert row["end"]["median"] == 0
    with pytest.raises(ValueError, match="no word in common"):
        summary([])


def test_punctuation_and_case_do_not_count() -> None:
    assert plain(" Don't,") == "dont"
