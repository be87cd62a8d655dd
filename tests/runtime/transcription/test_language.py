"""The language is asked of windows in which somebody speaks, and only if there is a choice."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from baldwhisper_mlx.audio.features import LogMelSpectrogram
from baldwhisper_mlx.audio.load import load_audio
from baldwhisper_mlx.checkpoint.load import LoadedModel, load_model
from baldwhisper_mlx.decoding.decoder import Decoder
from baldwhisper_mlx.decoding.result import DecodingResult
from baldwhisper_mlx.transcription.detect_language import detect_language
from baldwhisper_mlx.transcription.language import IMPROBABLE, LanguageWarning, doubts
from baldwhisper_mlx.transcription.transcribe import transcribe
from tests.runtime.audio.test_vad import RATE, SAMPLE, noise
from tests.runtime.conftest import tiny_config, tone, write_model
from tests.support.scripted import script, timed

WAYS: list[dict[str, Any]] = [{}, {"vad": True}, {"batch_size": 2}, {"vad": True, "batch_size": 2}]


@pytest.fixture(scope="module")
def loaded(model_folder: Path) -> LoadedModel:
    return load_model(model_folder, dtype="float32")


@pytest.fixture(scope="module")
def english(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    folder = tmp_path_factory.mktemp("english") / "tiny"
    return load_model(write_model(folder, tiny_config(languages=("en",))), dtype="float32")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The first mel frames of the windows whose language the model was asked for."""
    seeks: list[int] = []
    encoded: list[int] = []
    window, detect = LogMelSpectrogram.window, Decoder.detect_language

    def noted(self: LogMelSpectrogram, seek: int, *size: int) -> Any:
        encoded.append(seek)
        return window(self, seek, *size)

    def counted(self: Decoder, tokens: Any) -> Any:
        seeks.append(encoded[-1])
        return detect(self, tokens)

    monkeypatch.setattr(LogMelSpectrogram, "window", noted)
    monkeypatch.setattr(Decoder, "detect_language", counted)
    return seeks


def ringing(seconds: float) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Two seconds of a ring tone, four of silence."""
    time = np.arange(round(seconds * RATE)) / RATE
    both = np.sin(2 * np.pi * 440 * time) + np.sin(2 * np.pi * 480 * time)
    return (0.2 * both * (time % 6 < 2)).astype(np.float32)


@pytest.mark.parametrize("seconds", [0, 12, 40])
def test_the_first_speech_tells_the_language(
    loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch, asked: list[int], seconds: int
) -> None:
    samples = np.concatenate([ringing(seconds), load_audio(SAMPLE)])
    script(monkeypatch, [timed(loaded, (0.0, " one", 29.98))] * 4)
    found = transcribe(samples, loaded)
    assert found.language in loaded.tokenizer.languages
    # The window at hand is asked first; what is decoded in it depends on the last answer.
    assert asked[0] == 0
    assert abs(asked[-1] - 100 * seconds) < 100
    assert len(asked) == (1 if seconds == 0 else 2)


def test_speech_between_two_ranges_does_not_tell_the_language(
    loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch, asked: list[int]
) -> None:
    speech = load_audio(SAMPLE)  # 11 s
    samples = np.concatenate([ringing(12), speech, ringing(7), speech])
    script(monkeypatch, [timed(loaded, (0.0, " one", 9.98))] * 4)
    transcribe(samples, loaded, clip_timestamps=[(0, 12), (24, 45)])
    assert asked[0] == 0
    assert asked[-1] > 2900


def test_a_skipped_window_does_not_tell_the_language(
    loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch, asked: list[int]
) -> None:
    """Nobody speaks as far as the detector knows; the model skips the first window."""
    silence = timed(loaded, (0.0, " you", 29.98), no_speech=0.9, logprob=-1.5)
    script(monkeypatch, [silence, timed(loaded, (0.0, " one", 29.98))])
    found = transcribe(tone(50), loaded, temperature=0.0)
    assert asked == [0, 3000]
    assert found.text == " one"


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("level", [0.0, 0.001])
def test_a_silent_file_has_no_language(
    loaded: LoadedModel, english: LoadedModel, monkeypatch: pytest.MonkeyPatch,
    way: dict[str, Any], level: float,
) -> None:  # fmt: skip
    silence = timed(loaded, (0.0, " you", 29.98), no_speech=0.9, logprob=-1.5)
    for model in (loaded, english):
        script(monkeypatch, [silence] * 4)
        found = transcribe(noise(6, level), model, temperature=0.0, **way)
        assert (found.text, found.language) == ("", None)
        assert json.loads(found.to_json())["language"] is None
        script(monkeypatch, [silence] * 4)
        named = transcribe(noise(6, level), model, language="English", temperature=0.0, **way)
        assert named.language == "en"


def test_batches_agree_on_the_language_of_speech(
    loaded: LoadedModel, asked: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    speech = load_audio(SAMPLE)
    parts: list[Any] = []
    init = LogMelSpectrogram.__init__

    def noted(self: LogMelSpectrogram, samples: Any, n_mels: int) -> None:
        parts.append(samples)
        init(self, samples, n_mels)

    monkeypatch.setattr(LogMelSpectrogram, "__init__", noted)
    samples = np.concatenate([ringing(60), speech, ringing(20)])
    transcribe(samples, loaded, batch_size=3, temperature=0.0, no_speech_threshold=None)
    assert len(asked) == 1
    # Before anything is decoded: of the part in which somebody speaks.
    assert speech[RATE : 2 * RATE].tobytes() in parts[0].tobytes()


def test_probabilities_are_those_of_speech(loaded: LoadedModel, asked: list[int]) -> None:
    speech = load_audio(SAMPLE)
    alone = detect_language(speech, loaded, windows=1)
    after = detect_language(np.concatenate([ringing(90), speech]), loaded, windows=1)
    assert list(after) == list(alone)
    for code, probability in alone.items():
        assert after[code] == pytest.approx(probability, rel=0.2)
    asked.clear()
    assert detect_language(noise(6, 0.001), loaded) == {}
    assert asked == []


@pytest.mark.filterwarnings("ignore::UserWarning")  # its random text is improbable
@pytest.mark.parametrize("way", WAYS)
def test_a_model_of_one_language_is_not_asked(
    english: LoadedModel, asked: list[int], way: dict[str, Any]
) -> None:
    found = transcribe(
        load_audio(SAMPLE), english, temperature=0.0, no_speech_threshold=None, **way
    )
    assert found.language == "en"
    assert detect_language(SAMPLE, english) == {"en": 1.0}
    assert asked == []
    with pytest.raises(ValueError, match=r"does not know fr \(french\), only en .*--model"):
        transcribe(tone(), english, language="French")


def attempt(logprob: float, n_tokens: int) -> DecodingResult:
    return DecodingResult([70] * n_tokens, logprob, 0.0, 0.0)


def test_improbable_text_is_doubted(loaded: LoadedModel, english: LoadedModel) -> None:
    poor, good = attempt(IMPROBABLE - 0.3, 30), attempt(IMPROBABLE + 0.5, 30)
    doubt = doubts([poor], english.tokenizer)
    assert doubt is not None
    assert "-1.30" in doubt
    assert "--model" in doubt
    assert doubts([good], english.tokenizer) is None
    # The whole recording counts, and a few words say nothing.
    assert doubts([poor, good], english.tokenizer) is None
    assert doubts([attempt(-2.0, 10)], english.tokenizer) is None
    assert doubts([], english.tokenizer) is None
    assert doubts([poor], loaded.tokenizer) is None


@pytest.mark.parametrize("way", WAYS)
def test_a_recording_in_another_language_gets_a_warning(
    english: LoadedModel, monkeypatch: pytest.MonkeyPatch, way: dict[str, Any]
) -> None:
    speech = load_audio(SAMPLE)[: 8 * RATE]
    sentence = " Guten Morgen, meine Damen und Herren"
    script(monkeypatch, [timed(english, (0.0, sentence, 7.0), logprob=-1.2)] * 4)
    with pytest.warns(LanguageWarning, match="--model"):
        transcribe(speech, english, temperature=0.0, **way)
    script(monkeypatch, [timed(english, (0.0, sentence, 7.0), logprob=-0.4)] * 4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        transcribe(speech, english, temperature=0.0, **way)
