"""No time lies behind the end of the audio, whichever way it was transcribed."""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from baldwhisper_mlx.audio.chunking import Joined
from baldwhisper_mlx.audio.load import load_audio
from baldwhisper_mlx.checkpoint.load import LoadedModel, load_model
from baldwhisper_mlx.output.segment import Segment, Word
from baldwhisper_mlx.output.transcript import Transcript
from baldwhisper_mlx.transcription.retiming import retimed, shifted, within_audio
from baldwhisper_mlx.transcription.transcribe import transcribe
from tests.runtime.audio.test_vad import RATE, SAMPLE, noise
from tests.runtime.conftest import tone
from tests.support.scripted import script, timed

times = st.floats(0, 40)


@pytest.fixture(scope="module")
def loaded(model_folder: Path) -> LoadedModel:
    return load_model(model_folder, dtype="float32")


def segment(number: int, start: float, end: float, words: tuple[Word, ...] | None) -> Segment:
    return Segment(number, 0, start, end, " a", (1,), 0.0, -0.5, 1.0, 0.1, words)


@st.composite
def segments(draw: st.DrawFn) -> list[Segment]:
    """One after another, with or without words, whose times need not fit."""
    bounds = sorted(draw(st.lists(times, min_size=2, max_size=8)))
    result = []
    for number, (start, end) in enumerate(pairwise(bounds)):
        edges = sorted(draw(st.lists(times, min_size=2, max_size=4)))
        words = tuple(Word(round(a, 2), round(b, 2), " a", 0.5) for a, b in pairwise(edges))
        result.append(segment(number, start, end, words if draw(st.booleans()) else None))
    return result


@settings(deadline=None)
@given(segments(), st.integers(0, 30 * RATE))
def test_all_times_are_within_the_audio(before: list[Segment], n_samples: int) -> None:
    duration = n_samples / RATE
    after = within_audio(before, duration)
    assert [s.text for s in after] == [s.text for s in before]
    for old, new in zip(before, after, strict=True):
        assert 0 <= new.start <= new.end <= duration
        if old.end <= duration - 0.01:
            assert new == old or old.words
        # What a writer prints, rounded, is no later either.
        assert round(1000 * new.end) / 1000 <= duration
        for word in new.words or ():
            assert 0 <= word.start <= word.end <= duration
    starts = [s.start for s in after]
    assert starts == sorted(starts)


def test_a_segment_behind_the_end_never_starts_before_the_one_before() -> None:
    first, second = within_audio([segment(0, 0.0625, 1.0, None), segment(1, 1.0, 1.0, None)], 0.07)
    assert (first.start, second.start, second.end) == (0.0625, 0.0625, 0.07)


def test_a_segment_behind_the_end_is_put_at_the_end() -> None:
    first, second = segment(0, 0.0, 9.0, None), segment(1, 17.0, 26.0, None)
    _, moved = within_audio([first, second], 15.0)
    assert (moved.start, moved.end) == (9.0, 15.0)
    _, moved = within_audio([segment(0, 0.0, 16.0, None), second], 15.0)
    assert moved.start == pytest.approx(14.98)
    assert moved.end == 15.0


@settings(deadline=None)
@given(segments(), st.integers(0, 8), st.floats(1, 40))
def test_segments_in_two_parts_get_the_same_times(
    before: list[Segment], n_first: int, duration: float
) -> None:
    first = within_audio(before[:n_first], duration)
    previous = first[-1] if first else None
    parts = first + within_audio(before[n_first:], duration, previous=previous)
    assert parts == within_audio(before, duration)


@pytest.mark.parametrize("way", [{}, {"vad": True}])
def test_what_a_later_window_puts_behind_the_end_follows_the_window_before(
    loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch, way: dict[str, Any]
) -> None:
    late = timed(loaded, (29.0, " two", 29.2), (29.2, " three", 29.5))
    script(monkeypatch, [timed(loaded, (0.0, " one", 29.98)), late])
    speech = load_audio(SAMPLE)
    samples = np.concatenate([speech] * 4)[: 34 * RATE]
    found = transcribe(samples, loaded, language="en", no_speech_threshold=None, **way)
    one, two, _ = found.segments
    assert one.end == pytest.approx(29.98, abs=0.5)
    assert (two.start, two.end) == (one.end, pytest.approx(34, abs=0.5))


# Speech from 1 to 3 s and from 8 to 9 s, with 0.3 s without speech at either end of both.
JOINED = Joined(np.zeros(3 * RATE, np.float32), ((RATE, 3 * RATE), (8 * RATE, 9 * RATE)), 4800)


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        (1.8, 1.9, (2.8, 2.9)),
        (2.1, 2.2, (8.1, 8.2)),
        (1.4, 2.5, (2.4, 3.0)),
        (1.5, 2.7, (8.0, 8.7)),
        (2.0, 2.0, (8.0, 8.0)),
        (2.9, 3.0, (8.9, 9.0)),
    ],
)
def test_a_word_is_on_one_side_of_a_cut(
    start: float, end: float, expected: tuple[float, float]
) -> None:
    """That of its middle: it neither ends before it starts nor holds the pause."""
    word = Word(start, end, " a", 0.5)
    found = retimed(segment(0, start, end, (word,)), JOINED.restore)
    assert (found.start, found.end) == expected
    assert [(w.start, w.end) for w in found.words or ()] == [expected]


def test_a_segment_at_a_cut_does_not_end_before_it_starts() -> None:
    """Between 1.7 and 2.3 s a start belongs to the speech behind the cut, an end to that before."""
    found = retimed(segment(0, 1.8, 2.2, None), JOINED.restore)
    assert (found.start, found.end) == (2.8, 3.0)
    across = retimed(segment(0, 1.5, 2.5, None), JOINED.restore)
    assert (across.start, across.end) == (2.5, 8.5)


@settings(deadline=None)
@given(st.lists(st.integers(0, 300), min_size=2, max_size=9).map(sorted), st.integers(0, 700))
def test_words_keep_their_order_across_cuts(edges: list[int], offset: int) -> None:
    """And the first and the last of a segment its bounds, to the hundredth."""
    words = tuple(Word(a / 100, b / 100, " a", 0.5) for a, b in pairwise(edges))
    before = segment(0, words[0].start, words[-1].end, words)
    later = partial(shifted, offset * 0.004)
    for time in (JOINED.restore, later):
        found = retimed(before, time)
        times = [t for word in found.words or () for t in (word.start, word.end)]
        assert times == sorted(times)
        assert (found.start, found.end) == (times[0], times[-1])
        plain = retimed(segment(0, before.start, before.end, None), time)
        assert plain.start <= plain.end
        assert (plain.start, plain.end) == (round(plain.start, 2), round(plain.end, 2))


@pytest.mark.parametrize("words", [False, True])
def test_a_recording_that_ends_with_its_last_word(
    loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch, words: bool
) -> None:
    result = timed(loaded, (0.0, " one", 2.0), (2.0, " two", 4.0), word=3.9 if words else None)
    script(monkeypatch, [result])
    samples = tone(3.7609)
    found = transcribe(
        samples, loaded, language="en", word_timestamps=words, no_speech_threshold=None
    )
    assert [s.text for s in found.segments] == [" one", " two"]
    assert found.segments[-1].end == 3.76
    check_written(found)


def check_written(found: Transcript) -> None:
    """No format has a later time than the duration."""
    for item in found.segments:
        assert item.end <= found.duration
        assert all(word.end <= found.duration for word in item.words or ())
    last = round(1000 * found.segments[-1].end)
    assert last <= 1000 * found.duration
    assert f"\t{last}\t" in found.to_tsv()


@pytest.mark.parametrize("way", [{"vad": True}, {"batch_size": 2}, {"vad": True, "batch_size": 2}])
@pytest.mark.parametrize("words", [False, True])
def test_stretches_of_a_recording(
    loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch, way: dict[str, Any], words: bool
) -> None:
    """Every window claims 29.98 s; speech ends at a sample that is no whole frame."""
    speech = load_audio(SAMPLE)[: 7 * RATE + 77]
    samples = np.concatenate([speech, noise(25, 0), speech])
    result = timed(loaded, (0.0, " one", 29.98), word=29.9 if words else None)
    script(monkeypatch, [result] * 6)
    found = transcribe(
        samples, loaded, language="en", word_timestamps=words, no_speech_threshold=None, **way
    )
    assert found.segments
    assert found.duration == len(samples) / RATE
    check_written(found)
    if "batch_size" in way:  # nor does a stretch reach into the next one
        for a, b in pairwise(found.segments):
            assert a.end <= b.start
