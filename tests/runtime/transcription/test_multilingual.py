"""Recordings in several languages: windows end where the language changes, segments have theirs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from baldwhisper_mlx.audio.features import N_FRAMES, LogMelSpectrogram
from baldwhisper_mlx.audio.load import load_audio
from baldwhisper_mlx.checkpoint.load import LoadedModel, load_model
from baldwhisper_mlx.config import HOP_LENGTH
from baldwhisper_mlx.decoding.decoder import Decoder
from baldwhisper_mlx.output.segment import Segment
from baldwhisper_mlx.transcription import language_changes, multilingual
from baldwhisper_mlx.transcription.batched import transcribe_clips
from baldwhisper_mlx.transcription.detect_language import detect_language
from baldwhisper_mlx.transcription.language_changes import Stretch
from baldwhisper_mlx.transcription.options import TranscribeOptions
from baldwhisper_mlx.transcription.transcribe import transcribe
from tests.runtime.audio.test_vad import RATE, SAMPLE
from tests.runtime.conftest import tiny_config, tone, write_model
from tests.support.scripted import script, timed

SPEECH = load_audio(SAMPLE)
LONG = np.concatenate([SPEECH] * 8)[: 45 * RATE]


@pytest.fixture(scope="module")
def loaded(model_folder: Path) -> LoadedModel:
    return load_model(model_folder, dtype="float32")


class Detection:
    """Parts of 5 s without a pause, in the language that a table has for their time.

    Args:
        until: second of the recording at which each language ends, and its code.
    """

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, recording: np.ndarray, *until: tuple[float, str]
    ) -> None:
        self.recording, self.until = recording, until
        self.windows: list[float] = []
        """Seconds at which the windows start that were asked for their language."""
        monkeypatch.setattr(language_changes, "parts_of", self.parts_of)
        monkeypatch.setattr(multilingual, "languages_of_parts", self.detect)
        monkeypatch.setattr(multilingual, "_alone", self.alone)
        self.encoded_alone: list[float] = []
        """Seconds at which the parts start that were encoded by themselves."""

    def parts_of(self, samples: np.ndarray) -> list[tuple[int, int]]:
        place = next(
            start
            for start in range(0, len(self.recording), HOP_LENGTH)
            if np.array_equal(self.recording[start : start + len(samples)], samples)
        )
        self.windows.append(place / RATE)
        self._starts = [*getattr(self, "_starts", []), place / RATE]
        step = 5 * RATE
        return [(at, min(at + step, len(samples))) for at in range(0, len(samples), step)]

    def detect(self, _: Any, tokens: Sequence[int], parts: Sequence[tuple[int, int, int]]) -> Any:
        starts, self._starts = self._starts, []
        return self.table([starts[clip] + 0.02 * (a + b) / 2 for clip, a, b in parts])

    def alone(self, run: Any, spans: Sequence[Any], _: Any) -> Any:
        starts = [run.seek / 100 + first / RATE for first, _ in spans]
        self.encoded_alone += starts
        return self.table([start + 0.1 for start in starts])

    def table(self, times: Sequence[float]) -> np.ndarray:
        rows = np.full((len(times), len(self.codes)), 1e-3, np.float32)
        for row, time in zip(rows, times, strict=True):
            row[self.codes.index(next(code for end, code in self.until if time < end))] = 0.99
        return rows

    codes: Sequence[str] = ()


@pytest.fixture
def unlike() -> np.ndarray:
    """45 s of which no two parts are equal."""
    return (0.1 * np.random.default_rng(0).standard_normal(45 * RATE)).astype(np.float32)


def _language(loaded: LoadedModel, prompt: list[int]) -> str:
    codes = {token: code for code, token in loaded.tokenizer.languages.items()}
    return next(codes[token] for token in prompt if token in codes)


def test_a_window_ends_where_the_language_changes(
    loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch, unlike: np.ndarray
) -> None:
    detection = Detection(monkeypatch, unlike, (20, "fr"), (99, "en"))
    detection.codes = ["en", "fr"]
    outputs = [timed(loaded, (0.0, " un", 4.0), (4.0, " deux", 29.0))]
    outputs += [timed(loaded, (0.0, " three", 24.98))] * 2
    prompts = script(monkeypatch, outputs)
    found = transcribe(
        unlike, loaded, multilingual=True, languages=["en", "fr"], temperature=0.0,
        no_speech_threshold=None,
    )  # fmt: skip
    assert [_language(loaded, prompt) for prompt in prompts] == ["fr", "en"]
    assert detection.windows == [0, 20]
    # Before the first window no language is expected; then only parts in another one are asked.
    assert detection.encoded_alone == [0, 5, 10, 15, 20, 25, 20, 25, 30, 35, 40]
    assert [(one.text, one.language) for one in found.segments] == [
        (" un", "fr"), (" deux", "fr"), (" three", "en"),
    ]  # fmt: skip
    # The text in French is no context of the one in English.
    assert all(loaded.tokenizer.sot_prev not in prompt for prompt in prompts)
    assert found.segments[-1].start == 20
    assert '"language": "fr"' in found.to_json()


def test_text_in_the_same_language_is_context(
    loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch, unlike: np.ndarray
) -> None:
    detection = Detection(monkeypatch, unlike, (99, "fr"))
    detection.codes = loaded.tokenizer.known_languages
    script_of = [timed(loaded, (0.0, " un", 29.98)), timed(loaded, (0.0, " deux", 14.98))]
    prompts = script(monkeypatch, script_of)
    options: dict[str, Any] = {"temperature": 0.0, "no_speech_threshold": None}
    found = transcribe(unlike, loaded, multilingual=True, **options)
    assert loaded.tokenizer.sot_prev in prompts[1]
    assert detection.windows == [0, 30]
    assert detection.encoded_alone == [0, 5, 10, 15, 20, 25]
    assert found.language == "fr"
    script(monkeypatch, script_of)
    named = transcribe(unlike, loaded, language="fr", **options)
    assert [s.text for s in named.segments] == [s.text for s in found.segments]
    assert [s.language for s in named.segments] == [None, None]


def test_the_recording_is_in_the_language_that_is_spoken_longest(
    loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch, unlike: np.ndarray
) -> None:
    detection = Detection(monkeypatch, unlike, (15, "en"), (99, "fr"))
    detection.codes = ["en", "fr"]
    script(monkeypatch, [timed(loaded, (0.0, " one", 15)), timed(loaded, (0.0, " deux", 29.98))])
    found = transcribe(
        unlike, loaded, multilingual=True, languages=["english", "fr", "en"], temperature=0.0,
        no_speech_threshold=None,
    )  # fmt: skip
    assert found.language == "fr"
    assert [segment.language for segment in found.segments] == ["en", "fr"]


@pytest.mark.parametrize(
    "way", [{}, {"vad": True}, {"batch_size": 2}, {"vad": True, "batch_size": 2}]
)
@pytest.mark.parametrize("words", [False, True])
def test_real_parts_in_every_way(loaded: LoadedModel, way: dict[str, Any], words: bool) -> None:
    """A model of random weights, unscripted: whatever it detects, all is labelled and in order."""
    found = transcribe(
        LONG, loaded, multilingual=True, languages=["en", "fr"], temperature=0.0,
        logprob_threshold=None, no_speech_threshold=None, word_timestamps=words, **way,
    )  # fmt: skip
    assert found.segments
    assert {segment.language for segment in found.segments} <= {"en", "fr"}
    seeks = [segment.seek for segment in found.segments]
    assert seeks == sorted(seeks)
    assert max(segment.end for segment in found.segments) <= found.duration


def test_clips_of_a_batch_change_their_languages_by_themselves(
    loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch, unlike: np.ndarray
) -> None:
    """One clip is conditioned on its text, and the other is not any more."""
    changing, same = unlike, unlike[::-1].copy()

    def stretches(runs: Sequence[Any]) -> list[Stretch]:
        codes = ["en" if run.seek and run.samples[0] == changing[0] else "fr" for run in runs]
        return [Stretch(code, None) for code in codes]

    monkeypatch.setattr(multilingual, "stretches_of", stretches)
    first = timed(loaded, (0.0, " un", 29.98))
    prompts = script(monkeypatch, [first, first, *[timed(loaded, (0.0, " x", 14.98))] * 2])
    scripted = Decoder.decode

    def same_length(decoder: Decoder, prompt: Any, *more: Any, **options: Any) -> Any:
        assert not isinstance(prompt[0], list) or len({len(one) for one in prompt}) == 1
        return scripted(decoder, prompt, *more, **options)

    monkeypatch.setattr(Decoder, "decode", same_length)
    options = TranscribeOptions(multilingual=True, temperature=0.0, no_speech_threshold=None)
    found = transcribe_clips([changing, same], loaded, options)
    assert [[s.language for s in clip.segments] for clip in found] == [["fr", "en"], ["fr", "fr"]]
    assert [loaded.tokenizer.sot_prev in prompt for prompt in prompts] == [
        False,
        False,
        False,
        True,
    ]


def test_parts_of_a_window_are_detected_as_if_they_were_alone(loaded: LoadedModel) -> None:
    """From the states of the whole window; a part that is all of it changes nothing."""
    mel = LogMelSpectrogram(LONG, loaded.config.n_mels)
    decoder, tokens = loaded.decoder, list(loaded.tokenizer.languages.values())
    decoder.encode(mx.stack([mel.window(0), mel.window(1000)]), [N_FRAMES, N_FRAMES])
    whole = decoder.detect_language(tokens)
    positions = loaded.model.audio_positions(N_FRAMES)
    parts = [(0, 0, positions), (1, 0, positions), (1, 3, positions // 2)]
    found = multilingual.languages_of_parts(decoder, tokens, parts)
    assert found[:2] == pytest.approx(whole, abs=1e-5)
    assert np.abs(found[2] - whole[1]).max() > 1e-4
    assert decoder.detect_language(tokens) == pytest.approx(whole, abs=1e-6)
    assert multilingual.languages_of_parts(decoder, tokens, []).shape == (0, 2)


@pytest.mark.parametrize("way", [{}, {"vad": True, "batch_size": 2}])
def test_languages_limit_what_is_detected(loaded: LoadedModel, way: dict[str, Any]) -> None:
    likely, unlikely = detect_language(SPEECH, loaded)
    options: dict[str, Any] = {"temperature": 0.0, "logprob_threshold": None, **way}
    for languages in ([unlikely], [unlikely, likely], ["English", "fr"]):
        found = transcribe(SPEECH, loaded, languages=languages, no_speech_threshold=None, **options)
        assert found.language == (unlikely if languages == [unlikely] else likely)
    assert detect_language(SPEECH, loaded, languages=[unlikely]) == {unlikely: 1.0}


def test_unknown_languages_are_refused(loaded: LoadedModel) -> None:
    for function in (transcribe, detect_language):
        with pytest.raises(ValueError, match="unknown language 'xx'"):
            function(SPEECH, loaded, languages=["en", "xx"])


def test_a_model_of_one_language_refuses(tmp_path: Path) -> None:
    english = load_model(write_model(tmp_path / "tiny", tiny_config(languages=("en",))))
    with pytest.raises(ValueError, match=r"multilingual: this model knows only en \(english\)"):
        transcribe(tone(), english, multilingual=True)


@pytest.mark.parametrize(
    ("spans", "expected"),
    [
        ([(10.0, 12.0), (14.0, 29.0)], 250),  # 15 s are lost behind 12.5 s
        ([(10.0, 12.4), (27.0, 29.5)], 3000),  # 2.5 s may be noise
        ([(10.0, 12.4), (41.0, 60.0)], 3000),  # that is the next window
    ],
)
def test_an_output_that_ends_too_early_is_continued(
    spans: list[tuple[float, float]], expected: int
) -> None:
    segment = Segment(0, 1000, 10.0, 12.5, " one", (1,), 0.0, -0.1, 1.0, 0.0)
    speech = SimpleNamespace(spans=spans)
    found = multilingual.before_lost_speech([segment], speech, 1000, 3000)  # type: ignore[arg-type]
    assert found == expected
    assert multilingual.before_lost_speech([], speech, 1000, 3000) == 3000  # type: ignore[arg-type]
