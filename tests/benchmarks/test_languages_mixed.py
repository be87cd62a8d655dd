"""Figures of benchmarks/accuracy/languages_mixed.py, and the recordings that it is about."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

import numpy as np
import pytest

from baldwhisper_mlx.config import SAMPLE_RATE
from benchmarks.accuracy.languages_mixed import (
    UNKNOWN,
    add,
    seconds_by_language,
    summary,
    words_by_language,
)

# scripts are run by path, so they import their helpers as top-level modules
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))

import language_turns
import make_language_mix as mix

TURNS = [
    {"start": 0.0, "end": 4.0, "language": "en", "text": "THE CAT SAT"},
    {"start": 5.0, "end": 7.0, "language": UNKNOWN, "text": "wa obia"},
    {"start": 8.0, "end": 10.0, "language": "fr", "text": "Le chat dort."},
    {"start": 10.0, "end": 12.0, "language": "en", "text": "AND SLEEPS"},
]


def test_errors_belong_to_the_turn_they_stand_in() -> None:
    found = words_by_language("The cat sat down. Ouabia. Le chien. And sleeps.", TURNS)
    assert found["en"] == {"words": 5, "equal": 5, "errors": found["en"]["errors"]}
    assert found["fr"] == {"words": 3, "equal": 1, "errors": 2}
    assert found[UNKNOWN]["words"] == 2
    # "down" is an insertion, or stands in a word of the unknown turn: two errors in all.
    assert found["en"]["errors"] + found[UNKNOWN]["errors"] == 2
    nothing = words_by_language("", TURNS)
    assert {one["equal"] for one in nothing.values()} == {0}
    assert nothing["en"]["errors"] == 5


def test_labels_count_by_the_time_of_the_turn() -> None:
    spans = [(0.0, 5.5, "en"), (5.5, 9.0, "fr"), (9.0, 12.0, "en")]
    found = seconds_by_language(spans, TURNS)
    assert found["en"] == {"seconds": 6.0, "labelled": 6.0}
    assert found["fr"] == {"seconds": 2.0, "labelled": 1.0}
    assert found[UNKNOWN]["labelled"] == 0


def test_all_does_not_count_what_no_model_knows() -> None:
    total = words_by_language("the cat sat", TURNS)
    add(total, seconds_by_language([], TURNS))
    rows = summary(total, labels=False)
    assert rows["all"]["words"] == 8
    assert rows["all"]["written"] == pytest.approx(3 / 8)
    assert rows["all"]["wer"] == pytest.approx(5 / 8)
    assert rows["all"]["labelled"] is None
    assert rows[UNKNOWN]["words"] == 2


def test_neighbours_in_a_recording_differ() -> None:
    for number in range(30):
        languages = mix.sequence(np.random.default_rng(number), number)
        assert all(a != b for a, b in itertools.pairwise(languages))
        assert languages.count(mix.UNKNOWN) == (number % 3 == 2)


def test_turns_stand_where_the_recording_says() -> None:
    level = np.random.default_rng(1).standard_normal
    spoken = [
        mix.Utterance(level(2 * SAMPLE_RATE).astype(np.float32), "one"),
        mix.Utterance(level(40 * SAMPLE_RATE).astype(np.float32), "too long"),
        mix.Utterance(3 * level(2 * SAMPLE_RATE).astype(np.float32), "two"),
        mix.Utterance(level(6 * SAMPLE_RATE).astype(np.float32), "three"),
    ]
    pool = iter(spoken)
    first, second = mix.turn_of(pool, 3.0), mix.turn_of(pool, 5.0)
    assert (first.text, second.text) == ("one two", "three")
    with pytest.raises(ValueError, match="too few utterances"):
        mix.turn_of(pool, 1.0)
    rng = np.random.default_rng(2)
    samples, turns = mix.join([("en", first), ("fr", second)], [1.5], rng)
    assert [turn.language for turn in turns] == ["en", "fr"]
    assert turns[1].start - turns[0].end == pytest.approx(1.5, abs=0.01)
    for turn in turns:
        part = samples[int(turn.start * SAMPLE_RATE) : int(turn.end * SAMPLE_RATE)]
        assert np.sqrt(np.mean(np.square(part))) == pytest.approx(language_turns.LEVEL, rel=0.02)
    pause = samples[int(turns[0].end * SAMPLE_RATE) : int(turns[1].start * SAMPLE_RATE)]
    assert 0 < np.abs(pause).max() < 10 * language_turns.NOISE
