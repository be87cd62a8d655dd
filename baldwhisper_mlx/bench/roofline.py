"""The least work a model can do: bytes a decode step must move, and multiplications to encode.

Divided by the measured bandwidth and rate of products of the machine, they bound the speed of the
model from above (the roofline model of Williams et al., 2009).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import cast

import mlx.core as mx
from mlx.utils import tree_flatten

from baldwhisper_mlx.config import FRAMES_PER_POSITION, ModelConfig
from baldwhisper_mlx.model.whisper import Whisper

NOT_STREAMED = ("cross_attn.kv.", "positional_embedding", "dense_ids")
"""Not read by a step: the projections of the encoder's states, and all but a row of positions."""


def count_floats(model: Whisper) -> int | None:
    """Floating-point numbers in the weights; None if some of them are packed integers."""
    parameters = cast(list[tuple[str, mx.array]], tree_flatten(model.parameters()))
    if any(value.dtype == mx.uint32 for _, value in parameters):
        return None
    return sum(value.size for _, value in parameters if mx.issubdtype(value.dtype, mx.floating))


def weight_bytes(model: Whisper) -> int:
    """Bytes of the weights that one decode step reads, whatever the batch.

    Everything in the decoder but the projections of the encoder's states. A dense embedding
    counts once: the product with the vocabulary reads it all, and looking a token up one row.
    """
    parameters = cast(list[tuple[str, mx.array]], tree_flatten(model.decoder.parameters()))
    return sum(
        value.nbytes for name, value in parameters if not any(part in name for part in NOT_STREAMED)
    )


def cache_bytes(config: ModelConfig, *, itemsize: int, audio: int, text: float) -> float:
    """Bytes of keys and values that one step reads for one clip.

    Args:
        config: the model's.
        itemsize: bytes of a number in the caches.
        audio: encoder positions attended to.
        text: tokens in the cache, averaged over the steps.
    """
    return 2 * config.n_text_layer * config.n_text_state * itemsize * (audio + text)


def step_bytes(
    model: Whisper, *, batch: int, prompt: int, tokens: int, audio: int | None = None
) -> float:
    """Bytes one decode step must read, averaged over a decoding.

    Args:
        model: with its weights.
        batch: clips decoded together.
        prompt: tokens before the first that is decoded.
        tokens: tokens decoded.
        audio: encoder positions attended to; default all.
    """
    config = model.config
    itemsize = model.decoder.ln.weight.dtype.size
    positions = config.n_audio_ctx if audio is None else audio
    text = prompt + (tokens - 1) / 2
    caches = cache_bytes(config, itemsize=itemsize, audio=positions, text=text)
    return weight_bytes(model) + batch * caches


def encode_flops(config: ModelConfig, positions: int, constants: int = 0, tail: int = 0) -> int:
    """Floating-point operations to encode one clip, cross-attention keys and values included.

    A product of (m, k) by (k, n) counts 2mkn; softmax, norms and activations count nothing.

    Args:
        config: the model's.
        positions: encoder positions; 1500 are 30 s.
        constants: keys besides those of the positions (`Padding`).
        tail: constant states that the decoder also attends to.
    """
    t, d = positions, config.n_audio_state
    frames = FRAMES_PER_POSITION * t
    # two convolutions of width 3; the second halves the frames
    convolutions = 2 * frames * 3 * config.n_mels * d + 2 * t * 3 * d * d
    # query, key and value; output; two matrices of the MLP
    products = 2 * t * d * (3 * d + d + 4 * d + 4 * d)
    attention = 2 * (2 * t * (t + constants) * d)  # scores, and weighted values
    # keys and values of every decoder layer
    cross = config.n_text_layer * 2 * (t + tail) * d * 2 * d
    return convolutions + config.n_audio_layer * (products + attention) + cross


_PER_EVAL = 4  # several passes in one evaluation, so that starting it does not count
_REPEATS = 7


def bandwidth(stream_bytes: int, repeats: int = _REPEATS) -> float:
    """Bytes per second read from memory, by the fastest of three ways to read an array once.

    A sum, and a vector times a matrix in either orientation, as a decode step does it.

    Args:
        stream_bytes: size of the array; far more than any cache.
        repeats: measurements, of which the best counts.
    """
    side = max(1, int((stream_bytes / 4) ** 0.5))
    matrix, row = mx.full((side, side), 0.5), mx.full((1, side), 0.5)
    mx.eval(matrix, row)
    readers: list[Callable[[], mx.array]] = [
        lambda: matrix.sum(),
        lambda: row @ matrix,
        lambda: row @ matrix.T,
    ]
    fastest = min(_best_seconds(reader, repeats) for reader in readers)
    return matrix.nbytes / fastest


def product_rate(
    width: int, positions: int, dtype: mx.Dtype = mx.float32, repeats: int = _REPEATS
) -> float:
    """Floating-point operations per second in the products of an encoder block.

    Args:
        width: of the model, d.
        positions: rows of the products, T; 1500 for 30 s.
        dtype: of both factors.
        repeats: measurements, of which the best counts.
    """
    shapes = ((width, 3 * width), (width, width), (width, 4 * width), (4 * width, width))
    factors = []
    for rows, columns in shapes:
        x = mx.random.normal((positions, rows), key=mx.random.key(0)).astype(dtype)
        factors.append((x, mx.random.normal((rows, columns), key=mx.random.key(1)).astype(dtype)))
    mx.eval(factors)
    flops = sum(2 * positions * rows * columns for rows, columns in shapes)
    return flops / _best_seconds(lambda: [x @ weight for x, weight in factors], repeats)


def _best_seconds(make: Callable[[], mx.array | list[mx.array]], repeats: int) -> float:
    """Seconds for one call of `make`, in the best of several evaluations after one more."""
    times = []
    for _ in range(repeats + 1):
        mx.synchronize()
        began = time.perf_counter()
        mx.eval([make() for _ in range(_PER_EVAL)])
        mx.synchronize()
        times.append((time.perf_counter() - began) / _PER_EVAL)
    return min(times[1:])
