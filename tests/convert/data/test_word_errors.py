"""Word errors: counts by hand, normalization, and what has no words."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baldwhisper_convert.data.word_errors import word_error_rate, words_wrong
from baldwhisper_mlx.evaluation.normalizers import load_normalizer
from baldwhisper_mlx.evaluation.scoring import score


@pytest.mark.parametrize(
    ("reference", "hypothesis", "expected"),
    [
        ("a cat sat", "a cat sat", (0, 3)),
        ("A cat, sat.", "a CAT sat", (0, 3)),
        ("a cat sat", "the cat sat", (1, 3)),
        ("a cat sat", "cat sat down now", (3, 3)),
        ("a cat sat", "", (3, 3)),
        ("a cat sat", " ... ", (3, 3)),
        ("", "", (0, 0)),
        ("...", "two words", (2, 0)),
    ],
)
def test_words_wrong(reference: str, hypothesis: str, expected: tuple[int, int]) -> None:
    assert words_wrong(reference, hypothesis) == expected


words = st.lists(st.sampled_from(["one", "two", "three"]), max_size=6)


def distance(a: list[str], b: list[str]) -> int:
    """Levenshtein's, by its recursion."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, start=1):
        before, row[0] = row[0], i
        for j, y in enumerate(b, start=1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (x != y))
    return row[-1]


@given(words, words)
def test_is_the_edit_distance(a: list[str], b: list[str]) -> None:
    assert words_wrong(" ".join(a), " ".join(b)) == (distance(a, b), len(a))


@pytest.mark.parametrize(
    ("reference", "hypothesis"),
    [
        ("Well, hello there [laughs]!", "well hello (again) there"),
        ("It's 7 o'clock.", "its seven o\u2019clock"),
        ("n\u02bc\u0254 b\u025b taa, \u00e0 k\u00f2", "n'\u0254 b\u025b ta a ko"),
        ("state-of-the-art", "state of the art"),
        ("[music]", "and then"),
        ("one two", "..."),
        ("", ""),
    ],
)
def test_counts_are_those_of_the_evaluation(reference: str, hypothesis: str) -> None:
    scored = score(reference, hypothesis, load_normalizer("basic")).words
    assert words_wrong(reference, hypothesis) == (scored.errors, scored.total)


def test_rate_is_over_all_words() -> None:
    assert word_error_rate(["one two three", "four"], ["one two three", "five"]) == 0.25
    with pytest.raises(ValueError, match="no words"):
        word_error_rate(["", "..."], ["a", "b"])
    with pytest.raises(ValueError, match="zip"):
        word_error_rate(["a"], [])
