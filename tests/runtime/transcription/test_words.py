"""The words of a segment are its text, wherever a segment begins and ends."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from baldwhisper_mlx import Segment
from baldwhisper_mlx.transcription.word_splitting import TimedToken
from baldwhisper_mlx.transcription.words import add_words

PIECES = (" the", " fox", "es", ".", ",", ' "', " (", ")", " a", " -", "?", '"', " ", "犬")


def decode(tokens: Sequence[int]) -> str:
    return "".join(PIECES[token] for token in tokens)


def with_words(parts: Sequence[Sequence[int]], language: str = "en") -> tuple[Segment, ...]:
    """Segments of these tokens, a tenth of a second each, with their words."""
    segments, timed, position = [], [], 0
    for part in parts:
        times = [(position + i) / 10 for i in range(len(part) + 1)]
        position += len(part)
        segments.append(
            Segment(0, 0, times[0], times[-1], decode(part), tuple(part), 0.0, -0.1, 1.0, 0.0)
        )
        timed.append([TimedToken(t, times[i], times[i + 1], 0.9) for i, t in enumerate(part)])
    return add_words(segments, timed, decode, language=language, last_speech=0.0)[0]


@pytest.mark.parametrize("part", [(4,), (3, 3), (2,), (11, 4)])
def test_later_words_stay_in_their_segment(part: tuple[int, ...]) -> None:
    """A segment that begins with a mark, or within a word, moves no word of the next ones."""
    first, second, third = with_words([(0, 1), (*part, 0, 1), (8, 1, 3)])
    assert [word.word for word in first.words or ()] == [" the", " fox"]
    assert "".join(word.word for word in second.words or ()) == second.text
    assert [word.word for word in third.words or ()] == [" a", " fox."]
    assert (third.words or ())[0].start == pytest.approx(third.start)


@settings(max_examples=200, deadline=None)
@given(
    parts=st.lists(st.lists(st.integers(0, len(PIECES) - 1), max_size=7), min_size=1, max_size=4),
    language=st.sampled_from(["en", "ja"]),
)
def test_the_words_of_a_segment_are_its_text(parts: list[list[int]], language: str) -> None:
    for segment in with_words(parts, language):
        assert "".join(word.word for word in segment.words or ()) == segment.text
