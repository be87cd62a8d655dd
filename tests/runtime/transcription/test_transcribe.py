"""Recordings without their silences, and in batches: same text at the recording's own times."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from baldwhisper_mlx.audio.load import load_audio
from baldwhisper_mlx.checkpoint.load import LoadedModel, load_model
from baldwhisper_mlx.decoding.decoder import Decoder
from baldwhisper_mlx.transcription import strategies, without_pauses
from baldwhisper_mlx.transcription.detect_language import detect_language
from baldwhisper_mlx.transcription.transcribe import transcribe
from tests.runtime.audio.test_vad import RATE, SAMPLE, noise, talk

OPTIONS: dict[str, Any] = {"language": "en", "temperature": 0.0, "no_speech_threshold": None}


@pytest.fixture(scope="module")
def loaded(model_folder: Path) -> LoadedModel:
    return load_model(model_folder, dtype="float32")


def shifted(transcript: Any, seconds: float) -> list[tuple[float, float, str]]:
    return [(round(s.start + seconds, 2), round(s.end + seconds, 2), s.text)
            for s in transcript.segments]  # fmt: skip


def test_silence_around_speech_changes_nothing_but_the_times(loaded: LoadedModel) -> None:
    speech = load_audio(SAMPLE)[: 4 * RATE]
    padded = np.concatenate([noise(20, 0), speech, noise(15, 0)])
    (span,) = strategies.speech_spans(padded)
    alone = transcribe(padded[span[0] : span[1]], loaded, **OPTIONS)
    found = transcribe(padded, loaded, vad=True, **OPTIONS)
    assert found.text == alone.text
    # A model may put times after the end of its audio; silence cut away cannot hold them.
    last = round(span[1] / RATE, 2)
    expected = [(min(start, last), min(end, last), text)
                for start, end, text in shifted(alone, span[0] / RATE)]  # fmt: skip
    assert shifted(found, 0) == expected
    assert found.duration == len(padded) / RATE
    assert found.segments


@pytest.mark.parametrize("batch_size", [1, 4])
def test_a_recording_without_speech_has_no_text(
    loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch, batch_size: int
) -> None:
    for module in (strategies, without_pauses):
        monkeypatch.setattr(module, "speech_spans", lambda *_: [])
    found = transcribe(noise(3, 0), loaded, language="french", vad=True, batch_size=batch_size)
    assert (found.text, found.segments, found.language, found.duration) == ("", (), "fr", 3.0)


@pytest.mark.parametrize(
    ("words", "speech_only", "prompt"),
    [(False, False, None), (False, True, None), (True, False, None), (False, False, "Bloom")],
)
def test_batches_are_the_stretches_one_by_one(
    loaded: LoadedModel, words: bool, speech_only: bool, prompt: str | None
) -> None:
    speech = load_audio(SAMPLE)
    parts = [speech, noise(2, 0), speech, noise(1.5, 0), speech, noise(2, 0), speech[: 5 * RATE]]
    samples = np.concatenate(parts)
    if speech_only:
        spans = strategies.speech_spans(samples)
        chunks = strategies.chunks_of(samples, spans, strategies.WINDOW)
    else:
        chunks = strategies.equal_parts(samples, 2)  # of 43 s
    assert len(chunks) > 1
    steps: list[tuple[float, float]] = []
    found = transcribe(
        samples, loaded, batch_size=3, word_timestamps=words, vad=speech_only,
        initial_prompt=prompt,
        on_progress=lambda done, total: steps.append((done, total)), **OPTIONS,
    )  # fmt: skip
    expected: list[tuple[float, float, str]] = []
    texts = []
    for start, end in chunks:
        alone = transcribe(
            samples[start:end], loaded, word_timestamps=words, initial_prompt=prompt,
            condition_on_previous_text=False, **OPTIONS,
        )  # fmt: skip
        expected += shifted(alone, start / RATE)
        texts.append(alone.text)
    assert found.text == "".join(texts)
    assert [s.id for s in found.segments] == list(range(len(found.segments)))
    assert shifted(found, 0) == expected
    if words:
        assert all(s.words is not None for s in found.segments)
        for segment in found.segments:
            for word in segment.words or ():
                assert word.start >= chunks[0][0] / RATE - 0.01
    assert steps == sorted(steps)
    assert steps[-1][0] <= steps[-1][1] == len(samples) / RATE


def test_stretches_of_many_windows_are_decoded_in_lockstep(
    loaded: LoadedModel, encoded_sizes: list[int]
) -> None:
    sizes = encoded_sizes
    transcribe(talk(130), loaded, batch_size=2, **OPTIONS)
    # Each of the two is longer than two windows; the shorter one may end first.
    assert sizes[:2] == [2, 2]
    assert set(sizes[2:]) <= {1, 2}


def test_languages_are_detected_once(loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    samples = np.concatenate([talk(25), noise(2, 0), talk(25), noise(2, 0), talk(25)])
    options = OPTIONS | {"language": None}
    asked: list[int] = []
    detect = Decoder.detect_language

    def counted(self: Decoder, tokens: Any) -> Any:
        asked.append(len(tokens))
        return detect(self, tokens)

    monkeypatch.setattr(Decoder, "detect_language", counted)
    found = transcribe(samples, loaded, batch_size=2, **options)
    assert found.language in loaded.tokenizer.languages
    assert len(asked) == 1
    assert (
        transcribe(samples, loaded, batch_size=2, **OPTIONS | {"language": "French"}).language
        == "fr"
    )


def test_a_batch_size_below_one_is_refused(loaded: LoadedModel) -> None:
    with pytest.raises(ValueError, match="batch_size"):
        transcribe(talk(1), loaded, batch_size=0)


def test_languages_are_averaged_over_windows(loaded: LoadedModel) -> None:
    speech = np.resize(load_audio(SAMPLE), 30 * RATE)
    parts = [speech + noise(30, 0.001 * 4**seed, seed) for seed in range(3)]
    found = detect_language(np.concatenate(parts), loaded, windows=3)
    assert set(found) == set(loaded.tokenizer.languages)
    assert sum(found.values()) == pytest.approx(1, abs=1e-4)
    assert list(found.values()) == sorted(found.values(), reverse=True)
    alone = [detect_language(part, loaded, windows=1) for part in parts]
    for code in list(found)[:5]:
        assert found[code] == pytest.approx(np.mean([one[code] for one in alone]), rel=0.05)
    short = detect_language(parts[0][: 5 * RATE], loaded)
    assert len(short) == len(found)
    with pytest.raises(ValueError, match="windows"):
        detect_language(parts[0], loaded, windows=0)
