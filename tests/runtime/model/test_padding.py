"""The padding as constants: exact for the clip they were taken from, and where they are used."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten

from baldwhisper_mlx.model.calibration import calibrate
from baldwhisper_mlx.model.whisper import Whisper
from baldwhisper_mlx.ops import functions
from tests.runtime.conftest import tiny_config

N = 1500
FRAMES = (90, 430, 1730)
"""Of clips that take 100, 250 and 900 positions."""


@pytest.fixture(scope="module")
def model() -> Whisper:
    """Two layers, so that what the first one computes matters."""
    mx.random.seed(3)
    whisper = Whisper(tiny_config(n_audio_layer=2))
    flat = [
        (name, 0.3 * mx.random.normal(value.shape))
        for name, value in tree_flatten(whisper.parameters())
        if mx.issubdtype(value.dtype, mx.floating)
    ]
    whisper.load_weights(flat, strict=False)
    mx.eval(whisper.parameters())
    return whisper


def mel(n_frames: int, seed: int = 0) -> mx.array:
    """Log-mel (3000, 80) of a clip: noise, and zeros after its end."""
    sound = np.random.default_rng(seed).standard_normal((2 * N, 80)).astype(np.float32)
    sound[n_frames:] = 0
    return mx.array(sound)


@pytest.mark.parametrize("n_frames", FRAMES)
@pytest.mark.parametrize("mlx_only", [False, True])
def test_its_own_padding_changes_nothing(model: Whisper, n_frames: int, mlx_only: bool) -> None:
    """With every position's own keys and values the short context is the full one."""
    clip = mel(n_frames)
    padding = calibrate(model.encoder, [clip], [n_frames], stride=1, tail=N)
    length = 100 if n_frames == 90 else 250 if n_frames == 430 else 900
    full = model.encoder(clip[None])
    if mlx_only:
        with functions.mlx_only():
            short = padding.with_tail(model.encoder(clip[None, : 2 * length], padding=padding))
            mx.eval(short)
    else:
        short = padding.with_tail(model.encoder(clip[None, : 2 * length], padding=padding))
    assert short.shape == full.shape
    np.testing.assert_allclose(np.array(short), np.array(full), atol=2e-4)
    # The constants are what makes it so.
    cut = np.array(model.encoder(clip[None, : 2 * length]))
    assert np.abs(cut - np.array(full)[:, :length]).max() > 0.01
