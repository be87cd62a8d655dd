"""Attention, GELU and log-sum-exp: MLX's own, with fallbacks for its CPU backend on Linux.

That backend computes exp and erf number by number, 20 ns each, which was three quarters of the
encoder's time (docs/log.md). There are two kinds of fallback. Large matrices, as the encoder has
them, are evaluated and given to NumPy (cpu_tiles.py). Inside the decoding loop nothing may be
evaluated, so there exp is made of products. On Metal and on Apple's CPU no fallback is used.
Errors are bounded in tests/runtime/ops/test_functions.py.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import mlx.core as mx
import numpy as np
from mlx import nn

from baldwhisper_mlx.ops import cpu_tiles

BIG = 2**18
"""Size of an array from which on it pays to evaluate it and let NumPy work on it."""
SMALL = 2**15
"""Size of an array below which MLX's own function is as fast as a dozen primitives."""

FEW = 16
"""Query positions up to which attention is never evaluated: those of a short prompt, and of beams,
which are decoded in a loop in which the host must not wait."""

_SQUARINGS = 8
_SCALE = 2**-_SQUARINGS * math.sqrt(0.5)
_LOWEST = -80.0  # its exp is negligible, and no square on the way to it is subnormal, thus slow

_mlx_only = False


@contextmanager
def mlx_only() -> Iterator[None]:
    """MLX's own functions everywhere, for comparisons and for counting primitives."""
    global _mlx_only
    before, _mlx_only = _mlx_only, True
    try:
        yield
    finally:
        _mlx_only = before


def attention(
    q: mx.array, k: mx.array, v: mx.array, *, scale: float, mask: mx.array | str | None = None
) -> mx.array:
    """Scaled dot-product attention; arguments and result as mx.fast.scaled_dot_product_attention.

    Args:
        q: (B, H, L, head_dim).
        k: (B, H, T, head_dim).
        v: (B, H, T, head_dim).
        scale: of the scores.
        mask: "causal"; or bool that broadcasts to (B, H, L, T), False where not to attend; or
            numbers (1, 1, 1, T) to add to the scores, in the dtype of q.
    """
    size = q.shape[0] * q.shape[1] * q.shape[2] * k.shape[2]
    if size < SMALL or isinstance(mask, str) or not uses_cpu_fallback(q):
        return mx.fast.scaled_dot_product_attention(q, k, v, scale=scale, mask=mask)
    if q.shape[2] > FEW and size >= BIG:
        return _attend_by_tiles(q, k, v, scale, mask)
    scores = (q * (scale * _SCALE)) @ k.swapaxes(-1, -2)
    if mask is not None:
        is_bool = mask.dtype == mx.bool_
        scores = mx.where(mask, scores, -mx.inf) if is_bool else scores + mask * _SCALE
    weights = _exp(scores - scores.max(axis=-1, keepdims=True))
    return (weights @ v) / weights.sum(axis=-1, keepdims=True)


def gelu(x: mx.array) -> mx.array:
    """The exact GELU, x * Phi(x), element by element."""
    if x.size < BIG or not uses_cpu_fallback(x):
        if mx.default_device().type == mx.DeviceType.gpu or _mlx_only:
            return nn.gelu(x)
        # MLX compiles its own function. On a CPU that starts a C++ compiler, and loads what it
        # finds in a folder of TMPDIR that any user could have made.
        return x * (1 + mx.erf(x * math.sqrt(0.5))) * 0.5
    result = mx.zeros(x.shape)
    mx.eval(x, result)
    cpu_tiles.gelu_of_all(np.asarray(x).reshape(-1), np.asarray(result).reshape(-1))
    return result


def logsumexp(x: mx.array) -> mx.array:
    """log(sum(exp(x))) over the last axis, which stays as 1; hugely negative if all are -inf."""
    if x.size < SMALL or not uses_cpu_fallback(x):
        return mx.logsumexp(x, axis=-1, keepdims=True)
    largest = mx.maximum(x.max(axis=-1, keepdims=True), -1e30)
    return largest + mx.log(_exp((x - largest) * _SCALE).sum(axis=-1, keepdims=True))


def uses_cpu_fallback(x: mx.array) -> bool:
    """Whether functions of x are computed by this module instead of by MLX."""
    return (
        sys.platform == "linux"
        and not _mlx_only
        and x.dtype == mx.float32
        and mx.default_device().type == mx.DeviceType.cpu
    )


def _attend_by_tiles(
    q: mx.array, k: mx.array, v: mx.array, scale: float, mask: mx.array | None
) -> mx.array:
    batch, n_head, length, width = q.shape
    result = mx.zeros((batch, length, n_head, width))  # so that merging the heads is free
    mx.eval(q, k, v, result)
    target = np.asarray(result).transpose(0, 2, 1, 3)
    cpu_tiles.attend(np.asarray(q), np.asarray(k), np.asarray(v), target, scale, mask)
    return result.transpose(0, 2, 1, 3)


def _exp(x: mx.array) -> mx.array:
    """exp(x / _SCALE) for x <= 0, relative error below 1e-4 down to -10, as products.

    (1 + y + y^2 / 2) ^ n with y = x / (n _SCALE), the square completed: one primitive for each.
    """
    root = math.sqrt(0.5)
    # 1 + y + y^2 / 2 = (y / sqrt 2 + sqrt(1 / 2))^2 + 1 / 2; the caller has scaled x to y / sqrt 2.
    x = mx.square(mx.maximum(x, _LOWEST * _SCALE) + root) + 0.5
    for _ in range(_SQUARINGS):
        x = mx.square(x)
    return x
