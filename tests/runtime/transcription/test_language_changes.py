"""Where the language of a recording changes: the sequence of languages, and where windows end."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from baldwhisper_mlx.transcription.language_changes import (
    CLEAR,
    LEAST,
    Stretch,
    first_stretch,
    likeliest_sequence,
    without_short,
)

FEW = st.integers(1, 5)


@st.composite
def detections(draw: st.DrawFn) -> tuple[np.ndarray, list[float], int | None, float]:
    """Probabilities of up to three languages in up to five parts, their lengths, and a cost."""
    n_parts, n_languages = draw(FEW), draw(st.integers(1, 3))
    size = n_parts * n_languages
    raw = draw(st.lists(st.floats(0.001, 1), min_size=size, max_size=size))
    table = np.array(raw).reshape(n_parts, n_languages)
    seconds = draw(st.lists(st.floats(0.1, 6), min_size=n_parts, max_size=n_parts))
    present = draw(st.none() | st.integers(0, n_languages - 1))
    return table / table.sum(1, keepdims=True), seconds, present, draw(st.floats(0, 8))


def _score(
    sequence: tuple[int, ...],
    table: np.ndarray,
    seconds: list[float],
    present: int | None,
    change: float,
) -> float:
    before = sequence[0] if present is None else present
    changes = sum(a != b for a, b in itertools.pairwise((before, *sequence)))
    told = sum(
        min(length / CLEAR, 1) * np.log(max(row[language], LEAST))
        for language, row, length in zip(sequence, table, seconds, strict=True)
    )
    return float(told - change * changes)


@given(detections())
def test_no_other_sequence_is_likelier(
    case: tuple[np.ndarray, list[float], int | None, float],
) -> None:
    table, seconds, present, change = case
    sequence = tuple(likeliest_sequence(table, seconds, present, change=change))
    every = itertools.product(range(table.shape[1]), repeat=len(table))
    best = max(_score(other, table, seconds, present, change) for other in every)
    assert _score(sequence, table, seconds, present, change) == pytest.approx(best)


@given(detections())
def test_free_changes_give_the_likeliest_language_of_each_part(
    case: tuple[np.ndarray, list[float], int | None, float],
) -> None:
    table, seconds, present, _ = case
    sequence = likeliest_sequence(table, seconds, present, change=0)
    chosen = table[np.arange(len(table)), sequence]
    assert np.maximum(chosen, LEAST) == pytest.approx(np.maximum(table.max(1), LEAST))


@given(detections())
def test_the_present_language_stays_if_a_change_costs_more_than_all_that_is_known(
    case: tuple[np.ndarray, list[float], int | None, float],
) -> None:
    table, seconds, present, _ = case
    all_known = -len(table) * np.log(LEAST) + 1
    sequence = likeliest_sequence(table, seconds, present, change=all_known)
    assert len(set(sequence)) == 1
    assert present is None or sequence[0] == present


def test_one_odd_part_changes_nothing_and_two_do() -> None:
    french, english = [0.97, 0.03], [0.1, 0.9]
    odd = np.array([french, english, french])
    assert likeliest_sequence(odd, [3.0] * 3, 0) == [0, 0, 0]
    changed = np.array([french, english, english, english])
    assert likeliest_sequence(changed, [3.0] * 4, 0) == [0, 1, 1, 1]


def test_short_parts_count_less() -> None:
    table = np.array([[0.001, 0.999]])
    assert likeliest_sequence(table, [4.0], 0) == [1]
    assert likeliest_sequence(table, [0.3], 0) == [0]


def test_without_parts_there_is_no_sequence() -> None:
    assert likeliest_sequence(np.zeros((0, 3)), [], 1) == []


def test_a_stretch_ends_in_the_middle_of_the_pause_before_the_first_change() -> None:
    parts = [(0, 100), (150, 200), (260, 300), (310, 400)]
    assert first_stretch(parts, [1, 1, 0, 1], ["en", "fr"]) == Stretch("fr", 230)
    assert first_stretch(parts, [0, 0, 0, 0], ["en", "fr"]) == Stretch("en", None)


@given(st.lists(st.integers(1, 40), min_size=1, max_size=24), st.integers(1, 60))
def test_short_spans_join_a_neighbour(steps: list[int], shortest: int) -> None:
    edges = list(itertools.accumulate(steps))
    spans = list(zip(edges[::2], edges[1::2], strict=False))
    joined = without_short(spans, shortest)
    assert len(joined) <= 1 or all(end - start >= shortest for start, end in joined)
    # Nothing is lost, and nothing reaches into what was apart and long enough.
    for span in spans:
        assert sum(start <= span[0] and span[1] <= end for start, end in joined) == 1
    assert {edge for span in joined for edge in span} <= {edge for span in spans for edge in span}
    if all(end - start >= shortest for start, end in spans):
        assert joined == spans


def test_a_short_span_joins_across_the_shorter_pause() -> None:
    assert without_short([(0, 20), (30, 32), (35, 60)], 5) == [(0, 20), (30, 60)]
    assert without_short([(0, 20), (22, 24), (35, 60)], 5) == [(0, 24), (35, 60)]
    assert without_short([(3, 4)], 5) == [(3, 4)]
