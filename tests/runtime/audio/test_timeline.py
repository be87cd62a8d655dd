"""Pieces at their times: whatever the clock says, nothing is lost and nothing comes early."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from baldwhisper_mlx.audio.timeline import Piece, Silence, Timeline

RATE = 1000


def placed(starts: list[float | None], stated: float | None = None) -> list[tuple[float, float]]:
    """Start and value of every piece of a second, in a recording put together from them."""
    timeline = Timeline(stated)
    put: list[Piece | Silence] = []
    for number, start in enumerate(starts, start=1):
        samples = np.full((1, RATE), number, np.float32)
        put += timeline.add(Piece(samples, RATE, start))
    put += timeline.finish()
    found, position = [], 0.0
    for each in put:
        if isinstance(each, Piece):
            found.append((round(position, 3), float(each.samples[0, 0])))
        position += each.seconds
    assert position == pytest.approx(timeline.position)
    return found


def test_times_are_kept() -> None:
    assert placed([0, 1, 2]) == [(0, 1), (1, 2), (2, 3)]
    assert placed([5, 6]) == [(5, 1), (6, 2)]
    assert placed([0, 4, 5]) == [(0, 1), (4, 2), (5, 3)]
    assert placed([None, None]) == [(0, 1), (1, 2)]
    assert placed([0.05, 1.02, 2.09]) == [(0, 1), (1, 2), (2, 3)]  # rounded times
    assert placed([0, 1.5, 2.5]) == [(0, 1), (1.5, 2), (2.5, 3)]


def test_a_clock_that_starts_again() -> None:
    """As in two recordings joined into one."""
    assert placed([0, 1, 2, 0, 1, 2]) == [(i, i + 1) for i in range(6)]
    assert placed([0, 1, 2, 0, 1, 4]) == [(0, 1), (1, 2), (2, 3), (3, 4), (4, 5), (7, 6)]


@pytest.mark.parametrize("wrong", [1000.0, 500_000.0, -3.0])
def test_one_wrong_time_is_ignored(wrong: float) -> None:
    assert placed([0, 1, wrong, 3, 4]) == [(i, i + 1) for i in range(5)]


def test_times_after_the_stated_end_are_wrong() -> None:
    assert placed([0, 1, 900, 901, 4], stated=5.0) == [(i, i + 1) for i in range(5)]
    assert placed([0, 900, 901], stated=902.0) == [(0, 1), (900, 2), (901, 3)]


def test_gaps_are_noted() -> None:
    timeline = Timeline()
    for start in (2.0, 3.0, 5.0):
        list(timeline.add(Piece(np.zeros((1, RATE), np.float32), RATE, start)))
    assert timeline.gaps == [(4.0, 1.0)]


times = st.none() | st.floats(-10, 10**6)


@given(st.lists(times, max_size=20), st.none() | st.floats(0, 100))
def test_no_piece_is_lost_or_moved_before_another(
    starts: list[float | None], stated: float | None
) -> None:
    found = placed(starts, stated)
    assert [number for _, number in found] == [*range(1, len(starts) + 1)]
    assert all(later[0] >= first[0] + 0.999 for first, later in itertools.pairwise(found))
