"""The padding as constants: exact for the clip they were taken from, and where they are used."""

from __future__ import annotations

import dataclasses
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from mlx import nn
from mlx.utils import tree_flatten

from baldwhisper_mlx.model.calibration import calibrate
from baldwhisper_mlx.model.padding import ENDING
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


def test_quantized_matrices_as_a_gpu_keeps_them(model: Whisper) -> None:
    clip, plain = mel(430), model.encoder.blocks[0].attn.qkv
    model.encoder.blocks[0].attn.qkv = nn.QuantizedLinear.from_linear(plain, group_size=32, bits=8)
    try:
        padding = calibrate(model.encoder, [clip], [430], stride=1, tail=N)
        full = np.array(model.encoder(clip[None]))
        short = np.array(padding.with_tail(model.encoder(clip[None, :500], padding=padding)))
    finally:
        model.encoder.blocks[0].attn.qkv = plain
    np.testing.assert_allclose(short, full, atol=2e-4)


@pytest.mark.parametrize("stride", [1, 7, 8])
def test_a_key_counts_as_many_positions_as_it_stands_for(model: Whisper, stride: int) -> None:
    padding = calibrate(model.encoder, [mel(90)], [90], stride=stride, tail=20)
    constants, bias = padding.behind(100)
    keys, values = constants[0]
    n_keys = len(range(-(-100 // stride) * stride, N, stride))
    assert len(constants) == 2
    assert keys.shape == values.shape == (1, 2, n_keys, 16)
    assert bias.shape == (1, 1, 1, 100 + n_keys)
    counts = np.exp(np.array(bias)[0, 0, 0])
    assert counts[:100] == pytest.approx(1)
    assert counts[100:].sum() == pytest.approx(N - 100, rel=1e-5)


def test_equal_keys_may_be_merged(model: Whisper) -> None:
    """Where all constants are alike, a stride changes nothing but the number of keys."""
    one = calibrate(model.encoder, [mel(90)], [90], stride=1, tail=1)
    alike = dataclasses.replace(
        one,
        keys=mx.broadcast_to(one.keys[:, :, :1], one.keys.shape),
        values=mx.broadcast_to(one.values[:, :, :1], one.values.shape),
    )
    strided = dataclasses.replace(
        alike, keys=alike.keys[:, :, ::20], values=alike.values[:, :, ::20], stride=20
    )
    clip = mel(430)[None, :500]
    every, some = (np.array(model.encoder(clip, padding=p)) for p in (alike, strided))
    np.testing.assert_allclose(some, every, atol=2e-4)


def test_calibration_averages_the_clips_that_have_ended(model: Whisper) -> None:
    clips, frames = [mel(90, 1), mel(430, 2)], [90, 430]
    both = calibrate(model.encoder, clips, frames, stride=1, tail=5)
    first, second = (
        calibrate(model.encoder, [clip], [n], stride=1, tail=5)
        for clip, n in zip(clips, frames, strict=True)
    )
    for name in ("keys", "values"):
        mean, a, b = (np.array(getattr(p, name)) for p in (both, first, second))
        np.testing.assert_allclose(mean[:, :, :215], a[:, :, :215], atol=1e-5)
        np.testing.assert_allclose(mean[:, :, 215:], (a + b)[:, :, 215:] / 2, atol=1e-5)
    mean, a, b = (np.array(p.states) for p in (both, first, second))
    np.testing.assert_allclose(mean[215:], (a + b)[215:] / 2, atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mels": [], "n_frames": []}, "at least one clip"),
        ({"stride": 0}, "a stride of 0"),
        ({"stride": 51}, "a stride of 51"),
        ({"tail": 0}, "a tail of 0"),
    ],
)
def test_what_cannot_be_calibrated(model: Whisper, changes: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {"mels": [mel(90)], "n_frames": [90]} | changes
    with pytest.raises(ValueError, match=message):
        calibrate(model.encoder, **arguments)


@pytest.mark.parametrize(
    ("length", "tail", "behind"),
    [
        (250, 20, [*range(250, 270), *range(1490, 1500)]),
        (1350, 145, [*range(1350, 1500)]),
        (1400, 97, [*range(1400, 1500)]),
        (1450, 100, [*range(1450, 1500)]),
    ],
)
def test_the_end_of_30_s_stands_behind_the_tail(
    model: Whisper, length: int, tail: int, behind: list[int]
) -> None:
    """No state is there twice, so there are never more than in full context."""
    padding = calibrate(model.encoder, [mel(90)], [90], stride=50, tail=tail)
    clip = mx.zeros((2, length, padding.states.shape[1]))
    states = padding.with_tail(clip)
    assert states.shape[1] == length + len(behind) <= N
    expected = np.broadcast_to(np.array(padding.states)[behind], states[:, length:].shape)
    np.testing.assert_array_equal(np.array(states)[:, length:], expected)
    assert padding.counts(length)[1] == len(behind)


def test_the_decoder_attends_to_clip_and_tail(model: Whisper) -> None:
    """Batches take the positions of the longest clip; a clip of 30 s is encoded as always."""
    cache = model.make_cache()
    model.padding = calibrate(model.encoder, [mel(90)], [90], stride=8, tail=20)
    try:
        mels = mx.stack([mel(90, 3), mel(430, 4)])
        model.encode(mels, [90, 430], cache)
        assert cache[0].cross_attn.offset == 250 + 20 + ENDING
        assert cache[0].audio_mask is None
        keys = np.array(cache[0].cross_attn.state()[0])
        model.encode(mels[1:], [430], cache)
        alone = np.array(cache[0].cross_attn.state()[0])
        np.testing.assert_allclose(keys[1:], alone, atol=2e-4)
        model.encode(mel(90)[None], [90], cache)  # under a second: in full context
        assert cache[0].cross_attn.offset == N
        model.encode(mel(2990)[None], [2990], cache)
        assert cache[0].cross_attn.offset == N
        padded = np.array(cache[0].cross_attn.state()[0])
    finally:
        model.padding = None
    model.encode(mel(2990)[None], [2990], cache)
    np.testing.assert_array_equal(np.array(cache[0].cross_attn.state()[0]), padded)
