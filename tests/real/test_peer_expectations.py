"""What the tests of openai-whisper (o) and faster-whisper (f) expect of their recordings, of ours.

| theirs, in test_transcribe.py | ours |
|---|---|
| o: test_transcribe | test_words_of_a_speech |
| f: test_transcribe, test_vad | test_every_way_to_transcribe_a_speech |
| f: test_transcribe: the language | test_the_language_of_a_speech |
| f: test_stereo_diarization | test_two_speakers_on_two_channels |
| f: test_multilingual_transcription: the first segment | test_licence_in_english |
| f: test_monotonic_timestamps | test_times_of_a_long_recording |

BALDWHISPER_PEER_AUDIO is a folder with the recordings of faster-whisper's tests/data, of which
jfk.flac is that of openai-whisper. They use whisper-tiny, this is whisper-base, so a word may
differ. tests/runtime/transcription/test_peer_expectations.py has what needs no weights.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import baldwhisper_mlx
from baldwhisper_mlx import Transcript
from baldwhisper_mlx.audio.load import load_audio, load_channels
from baldwhisper_mlx.checkpoint.load import LoadedModel, load_model
from tests.support.real_data import SPEECH, named, recording
from tests.support.transcripts import check_transcript, spoken_words

pytestmark = pytest.mark.real

WAYS: list[dict[str, Any]] = [
    {}, {"vad": True}, {"batch_size": 16}, {"vad": True, "batch_size": 16},
]  # fmt: skip


def transcribe(audio: Any, loaded: LoadedModel, **options: Any) -> Transcript:
    options = {"temperature": 0.0, "word_timestamps": True} | options
    found = baldwhisper_mlx.transcribe(audio, loaded, **options)
    check_transcript(found, loaded)
    return found


@pytest.mark.parametrize("bundled", [False, True])
def test_words_of_a_speech(base: LoadedModel, bundled: bool) -> None:
    loaded = load_model() if bundled else base
    found = transcribe(recording("jfk.flac"), loaded)
    assert found.language == "en"
    for phrase in ("my fellow americans", "your country", "do for you"):
        assert phrase in found.text.lower()
    begin = loaded.tokenizer.timestamp_begin
    first = found.segments[0].tokens[0] - begin
    assert 0 <= first <= (5 if bundled else 0)  # <|0.00|>, by a model that OpenAI trained
    words = [word for segment in found.segments for word in segment.words or ()]
    assert all(word.start < word.end for word in words)
    (americans,) = [word for word in words if word.word.strip(" ,") == "Americans"]
    assert americans.start <= 1.8 <= americans.end


@pytest.mark.parametrize("way", WAYS)
def test_every_way_to_transcribe_a_speech(base: LoadedModel, way: dict[str, Any]) -> None:
    found = transcribe(recording("jfk.flac"), base, **way)
    assert found.duration == 11
    assert spoken_words(found.text) == spoken_words(SPEECH)
    assert len(found.segments) <= 2  # theirs is one: whisper-base ends the first at "for you,"
    assert 0 <= found.segments[0].start < 1
    assert 10 < found.segments[-1].end < 11
    if "vad" in way:
        assert found.segments[0].start > 0


def test_the_language_of_a_speech(base: LoadedModel) -> None:
    probabilities = baldwhisper_mlx.detect_language(recording("jfk.flac"), base)
    assert next(iter(probabilities)) == "en"
    assert probabilities["en"] > 0.9
    assert len(probabilities) == 99
    assert sum(probabilities.values()) == pytest.approx(1, abs=1e-4)


def test_two_speakers_on_two_channels(base: LoadedModel) -> None:
    left, right = load_channels(recording("stereo_diarization.wav"))
    assert spoken_words(transcribe(left, base).text) == spoken_words(
        "He began a confused complaint against the wizard, who had vanished behind the curtain "
        "on the left."
    )
    assert transcribe(right, base).text == " The horizon seems extremely distant."


def test_licence_in_english(base: LoadedModel) -> None:
    """Half a minute read aloud, of which at most a word in twenty is another one."""
    samples = load_audio(recording("multilingual.mp3"))[: 30 * 16_000]
    written = spoken_words(transcribe(samples, base, without_timestamps=True).text)
    for phrase in (
        "permission is hereby granted free of charge to any person obtaining a copy of",
        "to deal in the software without restriction including without limitation the rights",
        "to use copy modify merge publish distribute",
        "to permit persons to whom the software is furnished to do so",
        "the above copyright notice and this permission notice",
        "be included in all copies or substantial portions of the software",
    ):
        assert phrase in " ".join(written)


@pytest.mark.parametrize("way", WAYS)
def test_times_of_a_long_recording(base: LoadedModel, way: dict[str, Any]) -> None:
    folder = Path(named("BALDWHISPER_DATA"))
    rows = (folder / "metadata.jsonl").read_text(encoding="utf-8").splitlines()
    files = [folder / json.loads(row)["file_name"] for row in rows[:5]]
    samples = np.concatenate([load_audio(file) for file in files])
    found = transcribe(samples, base, **way)
    assert found.duration > 40
    assert len(spoken_words(found.text)) > found.duration
