"""Attention, GELU and log-sum-exp: MLX's own, and stand-ins for its CPU backend on Linux.

That backend computes exp and erf one number at a time, 20 ns each, which was three quarters of the
encoder's time (docs/log.md). The stand-ins are of two kinds. Big matrices, as the encoder has
them, are evaluated and NumPy works on MLX's own memory, a chunk on each core. Inside the decode
loop nothing may be evaluated, so there exp is made of products. Metal and Apple's CPU never come
here: the functions of this module are then those of MLX. Errors are bounded in
tests/runtime/test_functions.py.
"""

from __future__ import annotations

import itertools
import math
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING, TypeVar

import mlx.core as mx
import numpy as np
import numpy.typing as npt
from mlx import nn

if TYPE_CHECKING:
    from threadpoolctl import ThreadpoolController

BIG = 2**18
"""Numbers from which on it pays to wait for a matrix and let NumPy work on it."""
SMALL = 2**15
"""Numbers below which MLX's own functions are as fast as a dozen primitives."""

_CHUNK = 2**18  # numbers a core works on at a time: fewer, and Python's lock is in the way
_SQUARINGS = 8
_SCALE = 2**-_SQUARINGS * math.sqrt(0.5)
_LOWEST = -80.0  # exp of it counts for nothing, and squaring up to it makes no subnormal number

_own = False
_Job = TypeVar("_Job")
_Floats = npt.NDArray[np.float32]


@contextmanager
def mlx_only() -> Iterator[None]:
    """MLX's own functions everywhere, for comparisons and for counting primitives."""
    global _own
    before, _own = _own, True
    try:
        yield
    finally:
        _own = before


def attention(
    q: mx.array, k: mx.array, v: mx.array, *, scale: float, mask: mx.array | str | None = None
) -> mx.array:
    """Scaled dot-product attention; arguments and result as mx.fast.scaled_dot_product_attention.

    Args:
        q: (B, H, L, head_dim).
        k: (B, H, T, head_dim).
        v: (B, H, T, head_dim).
        scale: of the scores.
        mask: "causal", or bool that broadcasts to (B, H, L, T), False where not to look.
    """
    size = q.shape[0] * q.shape[1] * q.shape[2] * k.shape[2]
    if size < SMALL or isinstance(mask, str) or not stands_in(q):
        return mx.fast.scaled_dot_product_attention(q, k, v, scale=scale, mask=mask)
    if q.shape[2] > 1 and size >= BIG:
        return _attend_by_tiles(q, k, v, scale, mask)
    scores = (q * (scale * _SCALE)) @ k.swapaxes(-1, -2)
    if mask is not None:
        scores = mx.where(mask, scores, -mx.inf)
    weights = _exp(scores - scores.max(axis=-1, keepdims=True))
    return (weights @ v) / weights.sum(axis=-1, keepdims=True)


def gelu(x: mx.array) -> mx.array:
    """The exact GELU, x * Phi(x), element by element."""
    if x.size < BIG or not stands_in(x):
        return nn.gelu(x)
    result = mx.zeros(x.shape)
    mx.eval(x, result)
    source, target = (np.asarray(array).reshape(-1) for array in (x, result))

    def work(part: slice) -> None:
        target[part] = _gelu(source[part])

    _on_all_cores(work, _parts(x.size, _CHUNK))
    return result


def logsumexp(x: mx.array) -> mx.array:
    """log(sum(exp(x))) over the last axis, which stays as 1; hugely negative if all are -inf."""
    if x.size < SMALL or not stands_in(x):
        return mx.logsumexp(x, axis=-1, keepdims=True)
    largest = mx.maximum(x.max(axis=-1, keepdims=True), -1e30)
    return largest + mx.log(_exp((x - largest) * _SCALE).sum(axis=-1, keepdims=True))


def stands_in(x: mx.array) -> bool:
    """Whether functions of x are computed in another way than MLX's."""
    return (
        sys.platform == "linux"
        and not _own
        and x.dtype == mx.float32
        and mx.default_device().type == mx.DeviceType.cpu
    )


def _attend_by_tiles(
    q: mx.array, k: mx.array, v: mx.array, scale: float, mask: mx.array | None
) -> mx.array:
    """Evaluates `attention`, each core some rows of one head at a time: they fit its cache."""
    batch, n_head, length, width = q.shape
    result = mx.zeros((batch, length, n_head, width))  # as the next product wants it
    mx.eval(q, k, v, result)
    queries, keys, values = (np.asarray(array) for array in (q, k, v))
    target = np.asarray(result).transpose(0, 2, 1, 3)
    seen = None
    if mask is not None:
        seen = np.broadcast_to(np.array(mask), (batch, n_head, length, k.shape[2]))

    def work(tile: tuple[int, int, slice]) -> None:
        clip, head, _ = tile
        scores = (queries[tile] * np.float32(scale)) @ keys[clip, head].T
        if seen is not None:
            scores[~seen[tile]] = -np.inf
        scores -= scores.max(axis=1, keepdims=True)
        np.exp(scores, out=scores)
        target[tile] = (scores @ values[clip, head]) / scores.sum(axis=1, keepdims=True)

    rows = _parts(length, max(1, _CHUNK // k.shape[2]))
    # products of one thread each, beside one another
    with _blas().limit(limits=1):
        _on_all_cores(work, itertools.product(range(batch), range(n_head), rows))
    return result.transpose(0, 2, 1, 3)


def _on_all_cores(work: Callable[[_Job], None], jobs: Iterable[_Job]) -> None:
    """Runs the jobs on threads, for NumPy lets go of Python's lock; raises what one raises."""
    for _ in _workers().map(work, jobs):
        pass


def _parts(size: int, step: int) -> list[slice]:
    return [slice(start, start + step) for start in range(0, size, step)]


@lru_cache(maxsize=1)
def _workers() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(os.cpu_count(), "baldwhisper")


@lru_cache(maxsize=1)
def _blas() -> ThreadpoolController:
    from threadpoolctl import ThreadpoolController  # installed on Linux only

    return ThreadpoolController().select(user_api="blas")


def _exp(x: mx.array) -> mx.array:
    """exp(x / _SCALE) for x <= 0, relative error below 1e-4 down to -10, as products.

    (1 + y + y^2 / 2) ^ n with y = x / (n _SCALE), the square completed: one primitive for each.
    """
    root = math.sqrt(0.5)
    x = mx.square(mx.maximum(x, _LOWEST * _SCALE) + root) + 0.5
    for _ in range(_SQUARINGS):
        x = mx.square(x)
    return x


def _gelu(x: _Floats) -> _Floats:
    """relu(x) - |x| erfc(|x| / sqrt 2) / 2, erfc as Abramowitz and Stegun 7.1.26 (to 1.5e-7)."""
    size = np.abs(x)
    t = 1 / (1 + np.float32(0.3275911 * math.sqrt(0.5)) * size)
    tail = np.float32(1.061405429 / 2) * t
    for coefficient in (-1.453152027, 1.421413741, -0.284496736, 0.254829592):
        tail += np.float32(coefficient / 2)
        tail *= t
    tail *= np.exp(np.float32(-0.5) * size * size)
    result: _Floats = np.maximum(x, 0) - size * tail
    return result
