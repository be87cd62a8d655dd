"""What openai-whisper's test_audio.py expects of a loaded file and its features, of ours.

| theirs | ours |
|---|---|
| test_audio: shape, length and level of the samples | test_samples_of_a_file |
| test_audio: features of a file and of its samples, and their range | test_features_of_a_file |
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from baldwhisper_mlx.audio.features import log_mel_spectrogram
from baldwhisper_mlx.audio.load import load_audio
from baldwhisper_mlx.config import SAMPLE_RATE

SAMPLE = Path(__file__).parents[3] / "examples" / "sample.wav"
"""11 s, 16 kHz."""


def test_samples_of_a_file() -> None:
    samples = load_audio(SAMPLE)
    assert samples.ndim == 1
    assert samples.dtype == np.float32
    assert 10 * SAMPLE_RATE < len(samples) < 12 * SAMPLE_RATE
    assert 0 < samples.std() < 1
    assert abs(samples).max() <= 1


@pytest.mark.parametrize("n_mels", [80, 128])
def test_features_of_a_file(n_mels: int, tmp_path: Path) -> None:
    """The same whatever holds the samples, over at most 8 powers of ten, which are 2 units."""
    samples = load_audio(SAMPLE)
    path = tmp_path / "same.flac"
    soundfile.write(path, samples, SAMPLE_RATE, subtype="PCM_16")
    expected = np.array(log_mel_spectrogram(samples, n_mels))
    found = np.array(log_mel_spectrogram(load_audio(path), n_mels))
    assert expected.shape == (len(samples) // 160, n_mels)
    np.testing.assert_array_equal(found, expected)
    assert expected.max() - expected.min() <= 2
    assert expected.max() - expected.min() > 1
