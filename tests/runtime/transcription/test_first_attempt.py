"""A doubtful output of the padded audio context is decoded again in full context first."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from baldwhisper_mlx.checkpoint.load import LoadedModel, load_model
from baldwhisper_mlx.checkpoint.padding_file import compute_padding
from baldwhisper_mlx.decoding.decoder import Decoder
from baldwhisper_mlx.decoding.result import DecodingResult
from baldwhisper_mlx.transcription import strategies, without_pauses
from baldwhisper_mlx.transcription.batched import transcribe_clips
from baldwhisper_mlx.transcription.options import TranscribeOptions
from baldwhisper_mlx.transcription.transcribe import transcribe
from tests.runtime.conftest import RATE, tone

FULL = 1500
"""Encoder positions in 30 s."""
LOOP = [10] * 40
Output = tuple[list[int], float] | tuple[list[int], float, float]
"""Tokens, their mean log-probability, and that of no speech, if it is not 0."""


@pytest.fixture(scope="module")
def full(model_folder: Path) -> LoadedModel:
    return load_model(model_folder, dtype="float32")


@pytest.fixture(scope="module")
def padded(model_folder: Path) -> LoadedModel:
    model = load_model(model_folder, dtype="float32")
    model.model.padding = compute_padding(model.model, [tone(2)])
    return model


def script(monkeypatch: pytest.MonkeyPatch, outputs: Iterable[Output]) -> list[tuple[float, bool]]:
    """Makes the decoder give outputs.

    Returns:
        Of each decoding so far, its temperature, and whether it attended to all of 30 s.
    """
    left, asked = iter(outputs), []

    def decode(self: Decoder, prompt: Any, options: Any, **_: Any) -> list[DecodingResult]:
        keys, _ = self.encoded().layers[0]
        asked.append((options.temperature, keys.shape[2] == FULL))
        return [
            DecodingResult(tokens, logprob, no_speech[0] if no_speech else 0.0, options.temperature)
            for tokens, logprob, *no_speech in (next(left) for _ in range(len(keys)))
        ]

    monkeypatch.setattr(Decoder, "decode", decode)
    return asked


@pytest.mark.parametrize(
    "poor",
    [([65, 66], -1.1), (LOOP, -0.1), ([65, 66], -0.1, 0.3)],
    ids=["improbable", "loop", "perhaps silence"],
)
def test_the_fallback_begins_with_the_full_context(
    padded: LoadedModel, monkeypatch: pytest.MonkeyPatch, poor: Output
) -> None:
    asked = script(monkeypatch, [poor, ([67, 68], -0.1)])
    assert transcribe(tone(3), padded, language="en").text == "CD"
    assert asked == [(0.0, False), (0.0, True)]


def test_further_attempts_keep_the_full_context(
    padded: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    poor = ([65, 66], -1.1)
    asked = script(monkeypatch, [poor, poor, poor, ([67, 68], -0.1)])
    assert transcribe(tone(3), padded, language="en").text == "CD"
    assert asked == [(0.0, False), (0.0, True), (0.2, True), (0.4, True)]


@pytest.mark.parametrize(
    ("context", "options", "outputs", "asked"),
    [
        ("padded", {}, [([65], -0.9, 0.1)], [(0.0, False)]),  # nothing to doubt
        ("padded", {"no_speech_threshold": None}, [([65], -0.9, 0.9)], [(0.0, False)]),
        ("padded", {"temperature": 0.0}, [([65], -9.0)], [(0.0, False)]),  # no fallback
        ("padded", {"logprob_threshold": None}, [([65], -9.0)], [(0.0, False)]),
        ("full", {}, [([65], -1.1), ([66], -0.1)], [(0.0, True), (0.2, True)]),
    ],
)
def test_other_windows_are_not_encoded_again(
    full: LoadedModel,
    padded: LoadedModel,
    monkeypatch: pytest.MonkeyPatch,
    context: str,
    options: dict[str, Any],
    outputs: list[Output],
    asked: list[tuple[float, bool]],
) -> None:
    found = script(monkeypatch, outputs)
    transcribe(tone(3), padded if context == "padded" else full, language="en", **options)
    assert found == asked


def test_only_the_doubtful_clips_of_a_batch_are_encoded_again(
    padded: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    poor, good = ([65], -1.1), ([66], -0.1)
    asked = script(monkeypatch, [good, poor, good, poor, ([67], -0.1), poor, ([68], -0.2)])
    clips = [tone(seconds) for seconds in (2, 3, 4, 5)]
    found = transcribe_clips(clips, padded, TranscribeOptions(language="en"))
    assert [transcript.text for transcript in found] == ["B", "C", "B", "D"]
    assert asked == [(0.0, False), (0.0, True), (0.0, True), (0.2, True)]


def test_a_window_that_took_it_ends_as_in_full_context(
    padded: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rest behind its last timestamp is decoded, as by OpenAI's program."""
    begin = padded.tokenizer.timestamp_begin
    speech = [begin, 65, begin + 130, begin + 130]
    asked = script(monkeypatch, [(speech, -1.1), (speech, -0.1), ([begin, 66, begin + 15], -0.1)])
    found = transcribe(tone(3), padded, language="en")
    assert [segment.seek for segment in found.segments] == [0, 260]
    assert asked == [(0.0, False), (0.0, True), (0.0, True)]


WAYS: dict[str, dict[str, Any]] = {
    "sequential": {},
    "words": {"word_timestamps": True},
    "stretches": {"vad": True},
    "batches": {"vad": True, "batch_size": 2, "word_timestamps": True},
    "language": {"language": None},
}


@pytest.mark.parametrize("way", WAYS)
def test_a_doubtful_window_gets_the_transcript_of_full_context(
    full: LoadedModel, padded: LoadedModel, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """Every output of the random model is improbable, and so is taken from the full context."""
    spans = [(0, 3 * RATE), (31 * RATE, 35 * RATE)] if "vad" in WAYS[way] else [(0, 3 * RATE)]
    for module in (strategies, without_pauses):
        monkeypatch.setattr(module, "speech_spans", lambda *_: spans)
    rng = np.random.default_rng(1)
    samples = rng.normal(0, 0.1, spans[-1][1]).astype(np.float32)
    options = {"language": "en", "temperature": (0.0, 0.0), "no_speech_threshold": None} | WAYS[way]

    def times(model: LoadedModel, logprob: float | None) -> list[tuple[Any, ...]]:
        found = transcribe(samples, model, logprob_threshold=logprob, **options)
        return [
            (
                segment.tokens,
                segment.start,
                segment.end,
                [word.start for word in segment.words or ()],
            )
            for segment in found.segments
        ]

    expected = times(full, 0.0)
    assert expected
    assert times(padded, 0.0) == expected
    assert times(padded, None) != times(full, None)  # else nothing would be compared
