"""Cutting windows into segments: the properties that hold for any tokens.

tests/parity/test_segments_parity.py compares the same functions with openai-whisper.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from baldwhisper_mlx.transcription.segments import Piece, WindowSplit, make_segments, split_window

BEGIN = 1000
tokens = st.lists(st.integers(0, BEGIN + 1500) | st.integers(BEGIN, BEGIN + 9), max_size=30)
STATISTICS: dict[str, float] = {
    "temperature": 0.0,
    "avg_logprob": -0.3,
    "compression_ratio": 1.2,
    "no_speech_prob": 0.01,
}


def split(*window: int, seek: int = 0, segment_size: int = 3000) -> WindowSplit:
    return split_window(window, timestamp_begin=BEGIN, seek=seek, segment_size=segment_size)


def at(seconds: float) -> int:
    return BEGIN + round(seconds / 0.02)


@given(tokens, st.integers(0, 10**7), st.integers(1, 3000))
def test_any_tokens_make_progress_and_start_in_the_window(
    window: list[int], seek: int, segment_size: int
) -> None:
    result = split(*window, seek=seek, segment_size=segment_size)
    assert result.advance > 0
    assert len(result.pieces) >= 1
    assert all(seek / 100 <= piece.start <= piece.end for piece in result.pieces)


@given(tokens, st.integers(0, 10**7), st.integers(1, 3000))
def test_pieces_are_the_tokens_in_order_up_to_the_unfinished_rest(
    window: list[int], seek: int, segment_size: int
) -> None:
    result = split(*window, seek=seek, segment_size=segment_size)
    joined = [token for piece in result.pieces for token in piece.tokens]
    assert joined == window[: len(joined)]
    rest = window[len(joined) :]
    assert not any(a >= BEGIN and b >= BEGIN for a, b in pairwise(rest))


@given(tokens, st.integers(0, 10**6), st.integers(1, 3000))
def test_times_move_with_the_window_and_advance_does_not(
    window: list[int], seek: int, segment_size: int
) -> None:
    assume(window)
    here = split(*window, seek=0, segment_size=segment_size)
    there = split(*window, seek=seek, segment_size=segment_size)
    assert there.advance == here.advance
    for a, b in zip(here.pieces, there.pieces, strict=True):
        assert (b.start, b.end) == (a.start + seek / 100, a.end + seek / 100)
        assert b.tokens == a.tokens


def test_pairs_cut_and_the_unfinished_rest_is_decoded_again() -> None:
    first, second = (at(0), 1, 2, at(1.5)), (at(1.5), 3, at(4))
    result = split(*first, *second, at(4), 5, seek=100)
    assert result.pieces == (Piece(1.0, 2.5, first), Piece(2.5, 5.0, second))
    assert result.advance == 400


def test_a_single_timestamp_at_the_end_takes_the_whole_window() -> None:
    first, second = (at(0), 1, at(1.5)), (at(1.5), 3, at(4))
    result = split(*first, *second, segment_size=700)
    assert [piece.tokens for piece in result.pieces] == [first, second]
    assert result.advance == 700


def test_without_timestamps_the_window_is_one_piece() -> None:
    assert split(1, 2, seek=50, segment_size=750) == WindowSplit((Piece(0.5, 8.0, (1, 2)),), 750)
    assert split(segment_size=10) == WindowSplit((Piece(0.0, 0.1, ()),), 10)


def test_the_last_lone_timestamp_ends_the_piece_unless_it_is_zero() -> None:
    assert split(at(0), 1, at(2)).pieces[0].end == 2.0
    assert split(at(0), 1).pieces[0].end == 30.0


def test_what_openai_gets_wrong_is_put_right() -> None:
    text_first = split(7, 8, at(2), at(2), 9)
    assert text_first.pieces == (Piece(0.0, 2.0, (7, 8, at(2))),)
    assert split(at(0), at(0), 5, segment_size=1234).advance == 1234


@pytest.mark.parametrize(("seek", "size"), [(0, 0), (-1, 10), (0, -5)])
def test_impossible_windows_are_refused(seek: int, size: int) -> None:
    with pytest.raises(ValueError, match="no such window"):
        split(1, seek=seek, segment_size=size)


def spell(ids: Any) -> str:
    return "".join(chr(token) for token in ids if token < BEGIN)


def test_blank_and_instantaneous_pieces_keep_their_place() -> None:
    pieces = (
        Piece(0.0, 1.0, (at(0), 72, 105, at(1))),
        Piece(1.0, 1.0, (at(1), 72, at(1))),
        Piece(1.0, 2.0, (at(1), 32, at(2))),
    )
    segments = make_segments(pieces, spell, first_id=4, seek=200, **STATISTICS)
    assert [segment.id for segment in segments] == [4, 5, 6]
    assert [segment.text for segment in segments] == ["Hi", "", ""]
    assert [len(segment.tokens) for segment in segments] == [4, 0, 0]
    assert [(segment.start, segment.end) for segment in segments] == [(0, 1), (1, 1), (1, 2)]
    assert {segment.seek for segment in segments} == {200}


def test_log_probabilities_stay_with_their_tokens() -> None:
    pieces = (
        Piece(0.0, 1.0, (at(0), 72, 105, at(1))),
        Piece(1.0, 2.0, (at(1), 32, at(2))),
        Piece(2.0, 3.0, (at(2), 72, at(3))),
    )
    values = [-float(i) for i in range(10)]
    first, blank, last = make_segments(
        pieces, spell, first_id=0, seek=0, logprobs=values, **STATISTICS
    )
    assert first.logprobs == (0, -1, -2, -3)
    assert blank.logprobs == blank.tokens == ()
    assert last.logprobs == (-7, -8, -9)
