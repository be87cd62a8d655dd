"""NumPy on all cores: what MLX's CPU backend on Linux does slowly, on tiles that fit a cache.

That backend runs one primitive after the other over whole matrices, and exp and erf one number at
a time. Here a tile of rows goes through all of a block's work while it is in the cache, a tile on
each core, because NumPy lets go of Python's lock. Arrays are MLX's own memory, seen by NumPy. The
functions of MLX that these stand for are their twins in tests/runtime/ops/test_functions.py.
"""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from threading import Lock
from typing import TYPE_CHECKING, Any, TypeVar

import mlx.core as mx
import numpy as np
import numpy.typing as npt
from mlx import nn

if TYPE_CHECKING:
    from threadpoolctl import ThreadpoolController

CHUNK = 2**19
"""Numbers a core works on at a time: with fewer, Python's lock is in the way."""

Floats = npt.NDArray[np.float32]
_Job = TypeVar("_Job")
_turn = Lock()  # of two callers at once, one would set the other's limit back


def can_take(block: Any) -> bool:
    """Whether all matrices of an EncoderBlock are plain ones, none quantized."""
    layers = block.attn.qkv, block.attn.out, block.mlp1, block.mlp2
    return all(isinstance(layer, nn.Linear) for layer in layers)


def encoder_block(block: Any, x: mx.array, batch: int, mask: mx.array | None) -> mx.array:
    """Evaluates an EncoderBlock of plain float32 matrices; arguments and result as its own."""
    attn, length = block.attn, x.shape[0] // batch
    result = mx.zeros(x.shape)
    mx.eval(x, result)
    source, target = np.asarray(x), np.asarray(result)
    qkv = np.empty((len(source), 3 * source.shape[1]), np.float32)
    attended = np.empty(source.shape, np.float32)
    rows = _parts(len(source), max(1, CHUNK // (4 * source.shape[1])))

    def before(part: slice) -> None:
        qkv[part] = _linear(_layer_norm(source[part], block.attn_ln), attn.qkv)

    def after(part: slice) -> None:
        y = source[part] + _linear(attended[part], attn.out)
        hidden = _linear(_layer_norm(y, block.mlp_ln), block.mlp1)
        target[part] = y + _linear(gelu(hidden), block.mlp2)

    q, k, v = qkv.reshape(batch, length, 3, attn.n_head, -1).transpose(2, 0, 3, 1, 4)
    into = attended.reshape(batch, length, attn.n_head, -1).transpose(0, 2, 1, 3)
    on_all_cores(before, rows)
    attend(q, k, v, into, attn.scale, mask)
    on_all_cores(after, rows)
    return result


def attend(
    queries: Floats,
    keys: Floats,
    values: Floats,
    target: Floats,
    scale: float,
    mask: mx.array | None = None,
) -> None:
    """Scaled dot-product attention, some rows of a head at a time.

    Args:
        queries: (B, H, L, head_dim).
        keys: (B, H, T, head_dim).
        values: (B, H, T, head_dim).
        target: (B, H, L, head_dim), to be filled.
        scale: of the scores.
        mask: bool that broadcasts to (B, H, L, T), False where not to look.
    """
    batch, n_head, length, _ = queries.shape
    seen = None
    if mask is not None:
        seen = np.broadcast_to(np.array(mask), (batch, n_head, length, keys.shape[2]))

    def work(tile: tuple[int, int, slice]) -> None:
        clip, head, _ = tile
        scores = (queries[tile] * np.float32(scale)) @ keys[clip, head].T
        if seen is not None:
            scores[~seen[tile]] = -np.inf
        scores -= scores.max(axis=1, keepdims=True)
        np.exp(scores, out=scores)
        target[tile] = (scores @ values[clip, head]) / scores.sum(axis=1, keepdims=True)

    rows = _parts(length, max(1, CHUNK // keys.shape[2]))
    on_all_cores(work, itertools.product(range(batch), range(n_head), rows))


def gelu(x: Floats) -> Floats:
    """relu(x) - |x| erfc(|x| / sqrt 2) / 2, erfc as Abramowitz and Stegun 7.1.26 (to 1.5e-7)."""
    size = np.abs(x)
    t = 1 / (1 + np.float32(0.3275911 * math.sqrt(0.5)) * size)
    tail = np.float32(1.061405429 / 2) * t
    for coefficient in (-1.453152027, 1.421413741, -0.284496736, 0.254829592):
        tail += np.float32(coefficient / 2)
        tail *= t
    tail *= np.exp(np.float32(-0.5) * size * size)
    result: Floats = np.maximum(x, 0) - size * tail
    return result


def gelu_of_all(source: Floats, target: Floats) -> None:
    """Fills `target` with the GELU of `source`, both (n,)."""

    def work(part: slice) -> None:
        target[part] = gelu(source[part])

    on_all_cores(work, _parts(len(source), CHUNK))


def on_all_cores(work: Callable[[_Job], None], jobs: Iterable[_Job]) -> None:
    """Runs the jobs on threads, each with products of one thread; raises what one raises.

    Callers on several threads take turns. A job may not call this itself.
    """

    def quietly(job: _Job) -> None:
        with np.errstate(all="ignore"):  # who decodes looks for NaN and infinity
            work(job)

    with _turn, _blas().limit(limits=1):
        for _ in _workers().map(quietly, jobs):
            pass


def _layer_norm(x: Floats, norm: Any) -> Floats:
    x = x - x.mean(axis=1, keepdims=True)
    x /= np.sqrt(np.square(x).mean(axis=1, keepdims=True) + np.float32(norm.eps))
    x *= np.asarray(norm.weight)
    x += np.asarray(norm.bias)
    return x


def _linear(x: Floats, layer: Any) -> Floats:
    y: Floats = x @ np.asarray(layer.weight).T
    y += np.asarray(layer.bias)
    return y


def _parts(size: int, step: int) -> list[slice]:
    return [slice(start, start + step) for start in range(0, size, step)]


@lru_cache(maxsize=1)
def _workers() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(os.cpu_count(), "baldwhisper")


@lru_cache(maxsize=1)
def _blas() -> ThreadpoolController:
    from threadpoolctl import ThreadpoolController  # installed on Linux only

    return ThreadpoolController().select(user_api="blas")
