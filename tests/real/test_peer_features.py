"""What faster-whisper's tests expect of prompts, beams, ranges and languages, of ours.

| theirs, in test_transcribe.py | ours |
|---|---|
| test_prefix_with_timestamps | test_a_prefix_begins_the_transcript |
| test_hotwords | test_hotwords_are_written |
| test_transcribe: five beams, their default | test_beams |
| test_cliptimestamps_segments | test_ranges_are_transcribed_by_themselves |
| test_cliptimestamps_timings | test_ranges_of_two_sentences |
| test_multilingual_transcription | test_english_and_german |

The recordings are those of test_peer_expectations.py, and so is the model, whisper-base; theirs is
whisper-tiny, so a word may differ.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import baldwhisper_mlx
from baldwhisper_mlx.audio.load import load_audio
from baldwhisper_mlx.checkpoint.load import LoadedModel
from tests.support.real_data import SPEECH, recording
from tests.support.transcripts import check_transcript, spoken_words

pytestmark = pytest.mark.real

BATCHES = [1, 4]


def transcribe(audio: Any, loaded: LoadedModel, **options: Any) -> Any:
    found = baldwhisper_mlx.transcribe(audio, loaded, **{"temperature": 0.0} | options)
    check_transcript(found, loaded)
    return found


@pytest.mark.parametrize("batch_size", BATCHES)
def test_a_prefix_begins_the_transcript(base: LoadedModel, batch_size: int) -> None:
    prefix = "And so my fellow Americans"
    found = transcribe(recording("jfk.flac"), base, prefix=prefix, batch_size=batch_size)
    assert found.text.startswith(" " + prefix)
    assert spoken_words(found.text) == spoken_words(SPEECH)
    assert found.segments[0].start == 0
    assert 10 < found.segments[-1].end <= 11


@pytest.mark.parametrize("batch_size", BATCHES)
def test_hotwords_are_written(base: LoadedModel, batch_size: int) -> None:
    options = {"batch_size": batch_size}
    assert "ComfyUI" not in transcribe(recording("hotwords.mp3"), base, **options).text
    found = transcribe(recording("hotwords.mp3"), base, hotwords="ComfyUI", **options)
    assert "ComfyUI" in found.segments[0].text


def test_beams(base: LoadedModel) -> None:
    found = transcribe(recording("jfk.flac"), base, beam_size=5, word_timestamps=True)
    assert spoken_words(found.text) == spoken_words(SPEECH)
    assert found.text.startswith(" And so, my fellow Americans, ask not")


@pytest.mark.parametrize("batch_size", BATCHES)
def test_ranges_are_transcribed_by_themselves(base: LoadedModel, batch_size: int) -> None:
    """The same speech twice gives the same text twice, each within its range."""
    once = load_audio(recording("jfk.flac"))
    ranges = [(0.0, 11.0), (11.0, 22.0)]
    found = transcribe(
        np.concatenate([once, once]), base, clip_timestamps=ranges, batch_size=batch_size,
        condition_on_previous_text=False,
    )  # fmt: skip
    for start, end in ranges:
        own = [s for s in found.segments if start <= s.start and s.end <= end]
        assert spoken_words("".join(s.text for s in own)) == spoken_words(SPEECH)
    assert spoken_words(found.text) == 2 * spoken_words(SPEECH)


@pytest.mark.parametrize("batch_size", BATCHES)
def test_ranges_of_two_sentences(base: LoadedModel, batch_size: int) -> None:
    """Of two halves of a sentence, and what is between them is left out."""
    ranges = [(0.0, 2.3), (7.7, 11.0)]
    found = transcribe(recording("jfk.flac"), base, clip_timestamps=ranges, batch_size=batch_size)
    first, second = found.segments[0], found.segments[-1]
    assert spoken_words(first.text) == spoken_words("And so my fellow Americans")
    assert spoken_words(second.text) == spoken_words("ask what you can do for your country")
    assert (first.end <= 2.3, second.start >= 7.7) == (True, True)
    assert "what your" not in found.text


def test_english_and_german(base: LoadedModel) -> None:
    """The licence of MIT in English for half a minute, and then in German."""
    found = transcribe(
        recording("multilingual.mp3"), base, multilingual=True, without_timestamps=True,
        condition_on_previous_text=False,
    )  # fmt: skip
    languages = [segment.language for segment in found.segments]
    assert languages == sorted(languages, reverse=True)  # en before de
    assert set(languages) == {"en", "de"}
    texts = {
        language: " ".join(
            spoken_words("".join(s.text for s in found.segments if s.language == language))
        )
        for language in ("en", "de")
    }
    for phrase in ("permission is hereby granted free of charge", "portions of the software"):
        assert phrase in texts["en"]
    for phrase in (
        "die genehmigung erteilt",
        "das recht die software zu verwenden",
        "zu verteilen",
    ):
        assert phrase in texts["de"]
