"""Utterances found while speech arrives, against the spans of the whole recording."""

from __future__ import annotations

import numpy as np
import pytest

from baldwhisper_mlx.audio.endpointing import LIVE_SPEECH, Began, Ended, Endpointer, quietest
from baldwhisper_mlx.audio.load import load_audio
from baldwhisper_mlx.audio.vad import (
    HOP,
    SpeechDetector,
    VadOptions,
    spans_of,
    speech_probabilities,
)
from tests.runtime.test_bundled import SAMPLE


def utterances(
    probabilities: np.ndarray, n_samples: int, speech: VadOptions
) -> list[tuple[int, int]]:
    endpointer = Endpointer(speech)
    events = [endpointer.push(float(probability)) for probability in probabilities]
    found = [event for event in [*events, endpointer.finish(n_samples)] if event is not None]
    assert [type(event) for event in found] == [Began, Ended] * (len(found) // 2)
    return [(a.sample, b.sample) for a, b in zip(found[::2], found[1::2], strict=True)]


@pytest.mark.parametrize("seed", range(40))
def test_utterances_are_the_spans_of_the_whole(seed: int) -> None:
    rng = np.random.default_rng(seed)
    # Levels that last some hops each, as speech does, some of them between the two thresholds.
    levels = rng.choice([0.1, 0.4, 0.9], 60, p=[0.5, 0.1, 0.4])
    probabilities = np.repeat(levels, rng.integers(1, 25, 60)).astype(np.float32)
    n_samples = len(probabilities) * HOP - int(rng.integers(0, HOP))
    expected = spans_of(probabilities, HOP, n_samples, LIVE_SPEECH)
    assert len(expected) > 1
    assert utterances(probabilities, n_samples, LIVE_SPEECH) == expected


@pytest.mark.parametrize("seed", range(10))
def test_no_utterance_begins_before_the_samples_that_are_kept(seed: int) -> None:
    rng = np.random.default_rng(seed)
    endpointer, kept = Endpointer(), 0
    for probability in np.repeat(rng.choice([0.1, 0.9], 200), 3):
        event = endpointer.push(float(probability))
        if isinstance(event, Began):
            assert event.sample >= kept
        kept = endpointer.earliest


def test_a_short_pause_with_long_padding_is_refused() -> None:
    with pytest.raises(ValueError, match=r"0\.5 s, must be at least twice speech_pad, 0\.3 s"):
        Endpointer(VadOptions(min_silence_duration=0.5, speech_pad=0.3))


def test_the_detector_remembers_between_calls() -> None:
    samples = load_audio(SAMPLE)[: 60 * HOP]
    detector = SpeechDetector()
    parts = [detector.probabilities(part) for part in np.split(samples, 12)]
    np.testing.assert_array_equal(np.concatenate(parts), speech_probabilities(samples))


def test_long_speech_is_cut_in_its_longest_pause() -> None:
    speech = np.full(100, 0.9)
    speech[10:30] = 0.0  # in the first half
    speech[60:65] = 0.0
    speech[80:90] = 0.0
    assert quietest(speech.tolist(), 0.35) == 85


def test_long_speech_without_pause_is_cut_behind_a_word_or_where_it_is_least_probable() -> None:
    speech = np.full(100, 0.9)
    speech[70] = 0.6
    assert quietest(speech.tolist(), 0.35, fallback=55) == 55
    assert quietest(speech.tolist(), 0.35, fallback=20) == 70
    assert quietest(speech.tolist(), 0.35) == 70
    assert quietest([0.9], 0.35) == 1
