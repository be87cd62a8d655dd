"""Nothing is written where nobody speaks: no prompt, no sentence a second time, no blank cue."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from baldwhisper_mlx.audio.load import load_audio
from baldwhisper_mlx.checkpoint.load import LoadedModel, load_model
from baldwhisper_mlx.decoding.result import DecodingResult
from baldwhisper_mlx.transcription import second_opinion
from baldwhisper_mlx.transcription.transcribe import transcribe
from tests.runtime.audio.test_vad import RATE, SAMPLE
from tests.runtime.conftest import tone
from tests.support.scripted import script, timed

PROMPT = "Thanks for watching"


@pytest.fixture(scope="module")
def loaded(model_folder: Path) -> LoadedModel:
    return load_model(model_folder, dtype="float32")


def music(seconds: float) -> np.ndarray[Any, np.dtype[np.float32]]:
    """An arpeggio of decaying notes."""
    time = np.arange(RATE // 5) / RATE
    notes = [np.sin(2 * np.pi * f * time) * np.exp(-4 * time) for f in (262, 330, 392, 523)]
    return np.resize(0.2 * np.concatenate(notes), round(seconds * RATE)).astype(np.float32)


def prompted(with_prompt: DecodingResult, without: DecodingResult) -> Any:
    """One output after a previous text, another without."""
    return lambda prompt: with_prompt if len(prompt) > 6 else without


def test_the_prompt_is_not_written_over_music(
    loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Probable after the prompt, and improbable without it: the prompt made it probable."""
    copy = timed(loaded, (0.0, " Thanks for watching", 20.0), no_speech=0.4, logprob=-0.3)
    other = timed(loaded, (0.0, " I am not sure", 20.0), no_speech=0.4, logprob=-1.9)
    prompts = script(monkeypatch, [prompted(copy, other)] * 2)
    found = transcribe(music(25), loaded, language="en", initial_prompt=PROMPT)
    assert (found.text, found.segments) == ("", ())
    assert len(prompts[0]) > len(prompts[1])


@pytest.mark.parametrize("probable", [-0.3, -0.9])
def test_what_is_probable_without_the_prompt_is_kept(
    loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch, probable: float
) -> None:
    """Singing that the detector misses."""
    song = timed(loaded, (0.0, " la la li lo", 20.0), no_speech=0.4, logprob=probable)
    script(monkeypatch, [song] * 2)
    found = transcribe(music(25), loaded, language="en", initial_prompt=PROMPT)
    assert found.text == " la la li lo"


def test_a_ring_tone_has_no_dots(loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Probable, but neither the model nor the detector finds speech."""
    script(monkeypatch, [timed(loaded, (0.0, " ... ... ...", 5.0), no_speech=0.85, logprob=-0.66)])
    found = transcribe(tone(6), loaded)
    assert (found.text, found.language) == ("", None)


@pytest.mark.parametrize("batch_size", [1, 2])
def test_a_sentence_is_not_written_again_over_music(
    loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch, batch_size: int
) -> None:
    """Whisper does not doubt it, but it is a copy, and nobody speaks."""
    sentence = timed(loaded, (0.0, " The weather is good", 12.0))
    script(monkeypatch, [sentence] * 4)
    speech = load_audio(SAMPLE)[: 8 * RATE]
    samples = np.concatenate([speech, music(40)])  # two windows, or two parts
    found = transcribe(
        samples, loaded, language="en", batch_size=batch_size,
        initial_prompt=" The weather is good" if batch_size > 1 else None,
    )  # fmt: skip
    assert found.text == " The weather is good"
    assert [s.id for s in found.segments] == [0]
    assert found.to_srt().count("-->") == 1


def test_what_is_said_twice_is_written_twice(
    loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    sentence = timed(loaded, (0.0, " The weather is good", 12.0))
    script(monkeypatch, [sentence] * 2)
    speech = load_audio(SAMPLE)[: 8 * RATE]
    samples = np.concatenate([speech, music(22), speech])
    found = transcribe(samples, loaded, language="en")
    assert found.text == 2 * " The weather is good"


def test_a_sentence_has_the_time_of_its_speech(
    loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One sentence behind 20 s of music, for which Whisper gives the whole window."""
    script(monkeypatch, [timed(loaded, (0.0, " good", 28.0))])
    samples = np.concatenate([music(20), load_audio(SAMPLE)[: 4 * RATE], music(4)])
    (segment,) = transcribe(samples, loaded, language="en").segments
    assert 18.5 < segment.start < 21.5
    assert 23 < segment.end < 25.5


def test_the_detector_is_asked_only_where_there_is_doubt(
    loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    monkeypatch.setattr(
        second_opinion, "speech_spans", lambda samples: (asked.append(len(samples)), [])[1]
    )
    script(monkeypatch, [timed(loaded, (0.0, " The weather is good", 5.0), no_speech=0.1)])
    assert transcribe(tone(6), loaded, language="en").text == " The weather is good"
    assert asked == []
    doubted = timed(loaded, (0.0, " The weather is good", 5.0), no_speech=0.3, logprob=-1.2)
    script(monkeypatch, [doubted] * 6)
    assert transcribe(tone(6), loaded, language="en").text == ""
    assert asked == [6 * RATE]
    kept = transcribe(
        tone(6), loaded, language="en", no_speech_threshold=None, logprob_threshold=None
    )
    assert kept.text == " The weather is good"
    assert asked == [6 * RATE]


@pytest.mark.parametrize("words", [False, True])
def test_segments_without_text_are_left_out(
    loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch, words: bool
) -> None:
    result = timed(
        loaded, (0.0, " ", 1.0), (1.0, " one", 2.0), (2.0, "\n", 3.0), (3.0, " two", 4.0),
        word=1.5 if words else None,
    )  # fmt: skip
    script(monkeypatch, [result])
    found = transcribe(tone(5), loaded, language="en", word_timestamps=words)
    assert [s.text.strip() for s in found.segments if s.text.strip()] == [
        s.text.strip() for s in found.segments
    ]
    assert [s.id for s in found.segments] == list(range(len(found.segments)))
    if not words:
        assert [s.text for s in found.segments] == [" one", " two"]
    assert "\n\n\n" not in found.to_vtt()
