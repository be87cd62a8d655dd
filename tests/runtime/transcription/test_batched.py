"""Clips in one batch get the transcripts that they get one by one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from baldwhisper_mlx.checkpoint.load import LoadedModel, load_model
from baldwhisper_mlx.transcription.batched import transcribe_clips
from baldwhisper_mlx.transcription.options import TranscribeOptions
from baldwhisper_mlx.transcription.transcribe import transcribe
from tests.runtime.conftest import RATE, tiny_config, tone, write_model

Samples = np.ndarray[Any, np.dtype[np.float32]]

FORMS: dict[str, dict[str, Any]] = {
    "full": {},
    "trimmed": {"audio_context": "trimmed"},
    "dynamic": {"audio_context": "dynamic"},
}
OPTIONS: dict[str, dict[str, Any]] = {
    "greedy": {"language": "en", "temperature": 0.0},
    "text only": {"language": "en", "temperature": 0.0, "without_timestamps": True},
    "language detected": {"temperature": 0.0},
    # A random model's text is improbable, so every attempt but the last fails.
    "with a prompt": {"temperature": 0.0, "initial_prompt": "Leopold Bloom"},
    "with fallbacks": {"language": "fr", "temperature": (0.0, 0.7)},
    "failing and not tried again": {"language": "en", "temperature": 0.0, "logprob_threshold": 0},
    "beams": {"temperature": 0.0, "beam_size": 3},
    "beams and samples": {
        "language": "en",
        "temperature": (0.0, 0.7),
        "beam_size": 2,
        "best_of": 3,
    },
    "sampled": {"language": "en", "temperature": 0.5},
    "unconditioned": {"temperature": 0.0, "condition_on_previous_text": False},
    "silence": {"temperature": 0.0, "no_speech_threshold": 0.0, "logprob_threshold": 0.0},
}


def load(folder: Path, form: str) -> LoadedModel:
    return load_model(write_model(folder / form, tiny_config(**FORMS[form])), dtype="float32")


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return load(tmp_path_factory.mktemp("clips"), "dynamic")


def noisy(seconds: float, seed: int) -> Samples:
    noise = np.random.default_rng(seed).standard_normal(round(seconds * RATE), np.float32)
    return tone(seconds) * np.float32(0.5) + np.float32(0.1) * noise


@pytest.fixture(scope="module")
def clips() -> list[Samples]:
    """Of 17, 23 and 33 s (two windows), and one shorter than a frame, which has no window."""
    return [noisy(17.0, 1), noisy(23.0, 2), np.zeros(100, np.float32), noisy(33.0, 3)]


def assert_same(clips: list[Samples], loaded: LoadedModel, **options: Any) -> None:
    together = transcribe_clips(clips, loaded, TranscribeOptions(**options))
    for clip, found in zip(clips, together, strict=True):
        alone = transcribe(clip, loaded, **options)
        assert found.text == alone.text
        assert (found.language, found.duration) == (alone.language, alone.duration)
        assert [s.tokens for s in found.segments] == [s.tokens for s in alone.segments]
        assert [s.end for s in found.segments] == [s.end for s in alone.segments]


@pytest.mark.parametrize("name", OPTIONS)
def test_a_batch_is_its_clips_one_by_one(
    loaded: LoadedModel, clips: list[Samples], name: str
) -> None:
    assert_same(clips, loaded, **OPTIONS[name])


@pytest.mark.parametrize("form", ["full", "trimmed"])
def test_whatever_the_audio_context(tmp_path: Path, clips: list[Samples], form: str) -> None:
    assert_same(clips[:2], load(tmp_path, form), **OPTIONS["greedy"])


def test_first_windows_are_decoded_together(
    loaded: LoadedModel, clips: list[Samples], encoded_sizes: list[int]
) -> None:
    sizes = encoded_sizes
    options = OPTIONS["greedy"]
    for clip in clips:
        transcribe(clip, loaded, **options)
    alone, sizes[:] = len(sizes), []
    transcribe_clips(clips, loaded, TranscribeOptions(**options))
    assert sizes == [3] + [1] * (alone - 3)
    sizes.clear()
    transcribe_clips(clips[:2], loaded, TranscribeOptions(**OPTIONS["sampled"]))
    assert set(sizes) == {1}


def test_a_short_clip_is_not_encoded_at_the_length_of_a_long_one(
    loaded: LoadedModel, encoded_sizes: list[int]
) -> None:
    clips = [noisy(seconds, round(seconds)) for seconds in (25.0, 2.0, 3.0)]
    transcribe_clips(clips, loaded, TranscribeOptions(**OPTIONS["greedy"]))
    assert encoded_sizes[:2] == [2, 1]


def test_other_options_share_a_batch_if_they_decode_alike(
    loaded: LoadedModel, clips: list[Samples], encoded_sizes: list[int]
) -> None:
    each = [
        TranscribeOptions(temperature=0.0, language="en", initial_prompt="Bloom"),
        TranscribeOptions(temperature=0.0, language="fr", initial_prompt="bloom"),
    ]
    together = transcribe_clips(clips[:2], loaded, each)
    assert encoded_sizes[0] == 2
    alone = [
        transcribe_clips([clip], loaded, [own])[0]
        for clip, own in zip(clips[:2], each, strict=True)
    ]
    assert [one.text for one in together] == [one.text for one in alone]
    assert [one.language for one in together] == ["en", "fr"]


@pytest.mark.parametrize("temperature", [(0.0, 0.7), (0.0, 0.2, 0.4, 0.6)])
def test_a_window_is_encoded_once_whatever_is_tried(
    loaded: LoadedModel,
    clips: list[Samples],
    encoded_sizes: list[int],
    temperature: tuple[float, ...],
) -> None:
    """A random model's text is improbable, so every window is decoded at every temperature."""
    options: dict[str, Any] = {"language": "en", "temperature": temperature}
    found = transcribe_clips(clips, loaded, TranscribeOptions(**options))
    windows = {(i, s.seek) for i, clip in enumerate(found) for s in clip.segments}
    assert sum(encoded_sizes) == len(windows)
    assert encoded_sizes[0] == 3
    assert all(s.temperature == temperature[-1] for clip in found for s in clip.segments)


def test_wrong_samples_are_refused(loaded: LoadedModel) -> None:
    with pytest.raises(ValueError, match="NaN"):
        transcribe_clips([tone(), tone() * np.float32("nan")], loaded)
