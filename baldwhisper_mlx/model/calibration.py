"""Makes the constants of padding.py from a few clips, by encoding them in full context."""

from __future__ import annotations

from collections.abc import Sequence

import mlx.core as mx
import numpy as np

from baldwhisper_mlx.config import AUDIO_BUCKET, FRAMES_PER_POSITION
from baldwhisper_mlx.model.padding import Padding
from baldwhisper_mlx.model.whisper import AudioEncoder

STRIDE = 8
"""Positions that one constant key stands for."""
TAIL = 100
"""Positions (20 ms each) of padding that the decoder attends to."""


def calibrate(
    encoder: AudioEncoder,
    mels: Sequence[mx.array],
    n_frames: Sequence[int],
    *,
    stride: int = STRIDE,
    tail: int = TAIL,
) -> Padding:
    """Averages what an encoder computes behind clips, in its full context.

    Args:
        encoder: of a checkpoint trained on 30 s.
        mels: log-mel of each clip (2 N, n_mels), zeros after its end.
        n_frames: mel frames (10 ms) of each clip. A position counts the clips that have ended
            before it, and where there are none, the shortest one.
        stride: positions that one key stands for; at most `AUDIO_BUCKET`, so that every clip
            shorter than 30 s has one behind it.
        tail: positions that the decoder attends to.

    Raises:
        ValueError: no clip, or a stride or tail that does not fit the encoder's positions.
    """
    n_positions = len(encoder.positional_embedding)
    if not mels:
        raise ValueError("calibration: at least one clip is needed")
    if not 1 <= stride <= AUDIO_BUCKET or not 1 <= tail <= n_positions:
        raise ValueError(
            f"calibration: a stride of {stride} is not between 1 and {AUDIO_BUCKET}, or a tail of "
            f"{tail} not between 1 and {n_positions}"
        )
    ends = np.array([-(-frames // FRAMES_PER_POSITION) for frames in n_frames])
    has_ended = np.arange(n_positions) >= ends[:, None]
    has_ended[ends.argmin()] = True
    weights = mx.array((has_ended / has_ended.sum(axis=0)).astype(np.float32))
    keys = values = states = mx.zeros(())
    for mel, weight in zip(mels, weights, strict=True):
        k, v, x = _record(encoder, mel, stride)
        strided = weight[None, None, ::stride, None]
        keys, values = keys + strided * k, values + strided * v
        states = states + weight[:, None] * x
        mx.eval(keys, values, states)
    dtype = encoder.ln_post.weight.dtype
    return Padding(keys.astype(dtype), values.astype(dtype), states.astype(dtype), stride, tail)


def _record(
    encoder: AudioEncoder, mel: mx.array, stride: int
) -> tuple[mx.array, mx.array, mx.array]:
    """Keys and values (layers, H, n, head_dim) and states (N, d), float32, of one clip."""
    x = encoder.embed(mel[None])[0]
    keys, values = [], []
    for block in encoder.blocks:
        k, v = block.attn.keys_and_values(block.attn_ln(x[::stride]), 1)
        keys.append(k[0])
        values.append(v[0])
        x = block(x, 1, None)
    layers = mx.stack(keys), mx.stack(values), encoder.ln_post(x)
    mx.eval(layers)
    k, v, x = (array.astype(mx.float32) for array in layers)
    return k, v, x
