"""Log-mel features against openai-whisper's."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from baldwhisper_mlx.audio.features import (
    N_FRAMES,
    LogMelSpectrogram,
    log_mel_spectrogram,
    mel_filters,
)

whisper_audio = pytest.importorskip("whisper.audio")


def speechlike(n: int, seed: int = 0) -> np.ndarray:
    """Noise under a slow envelope with a hum: loud and quiet stretches, float32."""
    rng, time = np.random.default_rng(seed), np.arange(n) / 16_000
    envelope = np.exp(3 * np.sin(2 * np.pi * 0.11 * time) - 3)
    return (envelope * (rng.standard_normal(n) + np.sin(880 * time))).astype(np.float32)


def reference(samples: np.ndarray, n_mels: int) -> np.ndarray:
    """OpenAI's features of the recording as its transcribe() makes them, (frames, n_mels)."""
    padded = whisper_audio.log_mel_spectrogram(samples, n_mels, padding=480_000)
    return padded.numpy().T[: len(samples) // 160]


@pytest.mark.parametrize("n_mels", [80, 128])
def test_filters(n_mels: int) -> None:
    expected = whisper_audio.mel_filters("cpu", n_mels).numpy().T
    np.testing.assert_allclose(mel_filters(n_mels), expected, atol=1e-7)


@pytest.mark.parametrize("n_mels", [80, 128])
@settings(deadline=None, max_examples=8)
@given(n=st.integers(160, 40_000) | st.integers(470_000, 490_000), seed=st.integers(0, 99))
def test_recordings(n_mels: int, n: int, seed: int) -> None:
    samples = speechlike(n, seed)
    ours = np.array(log_mel_spectrogram(samples, n_mels))
    np.testing.assert_allclose(ours, reference(samples, n_mels), atol=1e-4)


def test_windows_of_a_long_recording_in_any_order() -> None:
    samples = speechlike(16_000 * 100 + 77)
    samples[-400:] *= 50  # the loudest bin is in the last frames and clamps the first ones
    mel, expected = LogMelSpectrogram(samples, 80), reference(samples, 80)
    for seek in (0, 3000, 1234, 7000, 9999, 8123):
        mel.prefetch(seek)
        window = np.array(mel.window(seek))
        size = min(N_FRAMES, len(expected) - seek)
        np.testing.assert_allclose(window[:size], expected[seek : seek + size], atol=1e-4)
        assert not window[size:].any()


def test_memory_does_not_grow_with_the_recording() -> None:
    mel = LogMelSpectrogram(speechlike(16_000 * 400), 80)
    for seek in range(0, mel.n_frames, 2500):
        mx.eval(mel.window(seek))
        mel.prefetch(seek)
        assert len(mel._chunks) <= 3


@pytest.mark.parametrize("samples", [np.zeros(16_000), np.full(200, 0.5), np.zeros(100)])
def test_silence_and_scraps(samples: np.ndarray) -> None:
    samples = samples.astype(np.float32)
    ours = np.array(log_mel_spectrogram(samples))
    np.testing.assert_allclose(ours, reference(samples, 80), atol=1e-4)
