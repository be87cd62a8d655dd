"""Log-mel of speech that arrives in blocks, against that of the whole utterance."""

from __future__ import annotations

import numpy as np
import pytest

from baldwhisper_mlx.audio.features import N_FRAMES, LogMelSpectrogram
from baldwhisper_mlx.audio.streaming_features import StreamingLogMel
from tests.runtime.conftest import tone


def crescendo(n_samples: int, seed: int = 0) -> np.ndarray:
    """Noise whose loudness grows by 12 powers of ten, so that the clamp matters at every time."""
    noise = np.random.default_rng(seed).standard_normal(n_samples)
    return (noise * np.logspace(-7, -1, n_samples)).astype(np.float32)


@pytest.mark.parametrize("n_mels", [80, 128])
@pytest.mark.parametrize("seed", range(6))
def test_features_so_far_are_those_of_the_samples_so_far(n_mels: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    samples = crescendo(int(rng.integers(1, 60_000)), seed)
    cuts = np.sort(rng.integers(0, len(samples), 9))
    mel, received = StreamingLogMel(n_mels), 0
    for block in np.split(samples, cuts):
        mel.append(block)
        received += len(block)
        if not received:
            continue
        whole = LogMelSpectrogram(samples[:received], n_mels)
        assert mel.n_frames == whole.n_frames
        np.testing.assert_allclose(mel.window(), whole.window(0), atol=2e-5)


def test_a_louder_sound_changes_earlier_frames_by_the_clamp_only() -> None:
    quiet = 1e-6 * tone(1.0)
    mel = StreamingLogMel(80)
    mel.append(quiet)
    before = np.array(mel.window())[:90]
    mel.append(tone(1.0))
    after = np.array(mel.window())[:90]
    raised = after > before
    assert raised.any()
    np.testing.assert_allclose(after[raised], after.min())
    np.testing.assert_array_equal(after[~raised], before[~raised])


def test_thirty_seconds_fit_and_no_more() -> None:
    samples = crescendo(30 * 16_000)
    mel = StreamingLogMel(80)
    for block in np.split(samples, 100):
        mel.append(block)
    assert mel.n_frames == N_FRAMES
    np.testing.assert_allclose(mel.window(), LogMelSpectrogram(samples, 80).window(0), atol=2e-5)
    with pytest.raises(ValueError, match="30 s"):
        mel.append(np.zeros(1, np.float32))
