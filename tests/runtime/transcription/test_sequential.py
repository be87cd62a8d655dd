"""Which windows are decoded again, and which are not decoded at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from baldwhisper_mlx.audio.features import N_FRAMES, LogMelSpectrogram
from baldwhisper_mlx.checkpoint.load import LoadedModel, load_model
from baldwhisper_mlx.checkpoint.padding_file import compute_padding
from baldwhisper_mlx.decoding.decoder import Decoder
from baldwhisper_mlx.decoding.result import DecodingResult
from baldwhisper_mlx.transcription.transcribe import transcribe
from tests.runtime.conftest import RATE, tone

SENTENCE = list(range(10, 21))


@pytest.fixture(scope="module")
def loaded(model_folder: Path) -> LoadedModel:
    return load_model(model_folder, dtype="float32")


class Script:
    """A decoder with given outputs, attempt by attempt, that records how it was called."""

    def __init__(self, loaded: LoadedModel, texts: list[list[int]]) -> None:
        self.begin, self.sot = loaded.tokenizer.timestamp_begin, loaded.tokenizer.sot
        self.texts = texts
        self.asked: list[tuple[float, bool, int]] = []
        """Temperature, whether loops were forbidden, and tokens of text in the prompt."""

    def decode(self, prompt: list[int], options: Any, **_: Any) -> list[DecodingResult]:
        n_previous = sum(token < self.begin for token in prompt[: prompt.index(self.sot)][1:])
        self.asked.append((options.temperature, options.guard_loops, n_previous))
        tokens = [self.begin, *self.texts[len(self.asked) - 1], self.begin + 1500]
        return [DecodingResult(tokens, -0.1, 0.0, options.temperature)]


def run(
    monkeypatch: pytest.MonkeyPatch,
    loaded: LoadedModel,
    windows: int,
    texts: list[list[int]],
    **options: Any,
) -> tuple[list[list[int]], list[tuple[float, bool, int]]]:
    """The text of each window, and how the decoder was called."""
    script = Script(loaded, texts)
    monkeypatch.setattr(Decoder, "decode", lambda _, *args, **kw: script.decode(*args, **kw))
    # A tone is no speech: without the threshold, copies of the previous text are kept.
    options = {
        "language": "en", "compression_ratio_threshold": 100, "no_speech_threshold": None,
    } | options  # fmt: skip
    found = transcribe(tone(30 * windows), loaded, **options)
    assert len(script.asked) == len(texts)
    texts = [[token for token in s.tokens if token < script.begin] for s in found.segments]
    return texts, script.asked


def test_a_sentence_three_times_in_a_row_is_decoded_again(
    monkeypatch: pytest.MonkeyPatch, loaded: LoadedModel
) -> None:
    texts, asked = run(monkeypatch, loaded, 1, [SENTENCE * 3, SENTENCE * 2])
    assert texts == [SENTENCE * 2]
    assert asked == [(0.0, False, 0), (0.2, True, 0)]


def test_a_loop_of_the_prompt_is_decoded_again_without_it(
    monkeypatch: pytest.MonkeyPatch, loaded: LoadedModel
) -> None:
    """A third repetition counts as a loop, unless it also comes without the previous text."""
    texts, asked = run(monkeypatch, loaded, 4, [SENTENCE] * 5)
    assert texts == [SENTENCE] * 4
    assert asked == [
        (0.0, False, 0),
        (0.0, False, 11),
        (0.0, False, 22),
        (0.2, True, 0),
        (0.0, False, 11),
    ]


@pytest.mark.parametrize("options", [{"temperature": 0.0}, {"compression_ratio_threshold": None}])
def test_a_loop_is_kept_if_that_is_asked(
    monkeypatch: pytest.MonkeyPatch, loaded: LoadedModel, options: dict[str, Any]
) -> None:
    texts, asked = run(monkeypatch, loaded, 2, [SENTENCE * 3, SENTENCE], **options)
    assert texts == [SENTENCE * 3, SENTENCE]
    assert asked == [(0.0, False, 0), (0.0, False, 30)]


@pytest.mark.parametrize("sounds", [[0, 42], [31, 98], []])
def test_windows_without_a_sound_are_not_decoded(
    loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch, sounds: list[int]
) -> None:
    """Two seconds of a tone here and there, and digital silence."""
    samples = np.zeros(130 * RATE, np.float32)
    for start in sounds:
        samples[start * RATE : (start + 2) * RATE] = tone(2)
    seeks: list[int] = []
    window = LogMelSpectrogram.window
    monkeypatch.setattr(
        LogMelSpectrogram,
        "window",
        lambda self, seek, *size: (seeks.append(seek), window(self, seek, *size))[1],
    )
    options: dict[str, Any] = {"language": "en", "temperature": 0.0, "no_speech_threshold": None}
    found = transcribe(samples, loaded, **options)
    assert bool(seeks) == bool(found.segments) == bool(sounds)
    for seek in seeks:
        assert any(seek < 100 * (start + 2) and 100 * start < seek + N_FRAMES for start in sounds)
    for start in sounds:
        assert any(seek <= 100 * start < seek + N_FRAMES for seek in seeks)


@pytest.mark.parametrize(
    ("silence", "expected"),
    [(0.0, 0), (0.9, 0), (5.0, 498), (29.0, 2898), (32.0, 3198), (65.0, 6498)],
)
def test_no_window_begins_with_digital_silence(silence: float, expected: int) -> None:
    """Whisper would begin the first segment there, and not where somebody speaks."""
    sound = 0.1 * np.ones(RATE, np.float32)
    samples = np.concatenate([np.zeros(round(silence * RATE), np.float32), sound])
    mel = LogMelSpectrogram(samples, 80)
    seek = mel.after_silence(0)
    assert seek == expected
    assert type(seek) is int
    assert mel.after_silence(seek) == seek
    assert LogMelSpectrogram(0 * samples, 80).after_silence(0) == mel.n_frames


@pytest.fixture(scope="module")
def padded(model_folder: Path) -> LoadedModel:
    """The same model in the padded audio context."""
    model = load_model(model_folder, dtype="float32")
    model.model.padding = compute_padding(model.model, [tone(2)])
    return model


@pytest.mark.parametrize(
    ("context", "seconds", "timestamps", "seeks"),
    [
        # Behind <|2.60|><|2.60|> of 3 s there is a rest of 0.4 s, which is not decoded again; in
        # full context it is, as by OpenAI's program.
        ("padded", 3.0, [(130, 130)], [0]),
        ("full", 3.0, [(130, 130), (15,)], [0, 260]),
        # Half a second may hold words.
        ("padded", 3.0, [(125, 125), (20,)], [0, 250]),
        # The last window of a long recording is padded, the first one is not.
        ("padded", 33.0, [(1480, 1480), (160, 160)], [0, 2960]),
        # A rest that no window held yet is decoded, however short it is.
        ("padded", 30.4, [(1500, 1500), (20,)], [0, 3000]),
    ],
)
def test_a_short_rest_behind_padded_speech_is_not_decoded_again(
    loaded: LoadedModel,
    padded: LoadedModel,
    monkeypatch: pytest.MonkeyPatch,
    context: str,
    seconds: float,
    timestamps: list[tuple[int, ...]],
    seeks: list[int],
) -> None:
    model = padded if context == "padded" else loaded
    begin = model.tokenizer.timestamp_begin
    outputs = iter([begin, 65, 66, *(begin + time for time in ends)] for ends in timestamps)

    def decode(_: Decoder, __: list[int], options: Any, **___: Any) -> list[DecodingResult]:
        return [DecodingResult(next(outputs), -0.1, 0.0, options.temperature)]

    monkeypatch.setattr(Decoder, "decode", decode)
    found = transcribe(tone(seconds), model, language="en")
    assert [segment.seek for segment in found.segments] == seeks
    assert next(outputs, None) is None
