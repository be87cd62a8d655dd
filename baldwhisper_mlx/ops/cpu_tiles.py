"""NumPy on all cores, for what MLX's CPU backend on Linux does slowly: tiles that fit a cache.

That backend runs primitive after primitive over whole matrices, and exp and erf number by number.
Here a tile of rows goes through all of a block's work while it is in the cache. The tiles run on
threads, one per core, because NumPy releases Python's lock. The arrays are MLX's memory, viewed by
NumPy. tests/runtime/ops/test_functions.py compares each function with MLX's own.
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
"""Numbers a core works on at a time: with fewer, threads wait for Python's lock."""

THREADS = "BALDWHISPER_THREADS"
"""In the environment: how many threads to start, where several processes share the cores."""

_PIECE = 2**16
"""Numbers of a GELU at a time, which needs memory for six times as many."""

Floats = npt.NDArray[np.float32]
_Job = TypeVar("_Job")
_turn = Lock()  # two callers at once would reset each other's limit of BLAS threads


def supports_block(block: Any) -> bool:
    """Whether all matrices of an EncoderBlock are plain ones, none quantized."""
    layers = block.attn.qkv, block.attn.out, block.mlp1, block.mlp2
    return all(isinstance(layer, nn.Linear) for layer in layers)


def encoder_block(
    block: Any,
    x: mx.array,
    batch: int,
    mask: mx.array | None,
    constants: tuple[mx.array, mx.array] | None = None,
) -> mx.array:
    """Evaluates an EncoderBlock of plain float32 matrices.

    Args:
        block: for which `supports_block` holds.
        x: (B * T, d).
        batch: B.
        mask: as in `attend`, for T + n keys; None for none.
        constants: keys and values (1, H, n, head_dim) that follow those of x.

    Returns:
        (B * T, d), evaluated.
    """
    attn, length = block.attn, x.shape[0] // batch
    # NumPy reads and fills MLX's memory in place, so both arrays have to exist before.
    result = mx.zeros(x.shape)
    mx.eval(x, result)
    source, target = np.asarray(x), np.asarray(result)
    # The only whole matrices between the steps: every position attends to all others.
    qkv = np.empty((len(source), 3 * source.shape[1]), np.float32)
    attended = np.empty(source.shape, np.float32)
    # The widest array of a tile, the hidden layer of the MLP, has 4 d numbers in a row.
    rows = _parts(len(source), max(1, CHUNK // (4 * source.shape[1])))

    def project(part: slice) -> None:
        qkv[part] = _linear(_layer_norm(source[part], block.attn_ln), attn.qkv)

    def finish(part: slice) -> None:
        y = source[part] + _linear(attended[part], attn.out)
        hidden = _linear(_layer_norm(y, block.mlp_ln), block.mlp1)
        numbers = hidden.reshape(-1)
        for piece in _parts(len(numbers), _PIECE):
            numbers[piece] = gelu(numbers[piece])
        target[part] = y + _linear(hidden, block.mlp2)

    # Views: (3, B, H, T, head_dim) of the projections, (B, H, T, head_dim) of the attention.
    q, k, v = qkv.reshape(batch, length, 3, attn.n_head, -1).transpose(2, 0, 3, 1, 4)
    by_head = attended.reshape(batch, length, attn.n_head, -1).transpose(0, 2, 1, 3)
    # Rows depend on each other in attention alone, so each step runs through all tiles.
    on_all_cores(project, rows)
    if constants is not None:
        more_keys, more_values = constants
        k, v = _extended(k, more_keys), _extended(v, more_values)
    attend(q, k, v, by_head, attn.scale, mask)
    on_all_cores(finish, rows)
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
        mask: bool that broadcasts to (B, H, L, T), False where not to attend; or numbers
            (1, 1, 1, T) to add to the scores.
    """
    batch, n_head, length, _ = queries.shape
    allowed = bias = None
    if mask is not None and mask.dtype == mx.bool_:
        allowed = np.broadcast_to(np.array(mask), (batch, n_head, length, keys.shape[2]))
    elif mask is not None:
        bias = np.array(mask).reshape(-1)

    def work(tile: tuple[int, int, slice]) -> None:
        clip, head, _ = tile
        # Fewer numbers to scale than in the scores.
        scores = (queries[tile] * np.float32(scale)) @ keys[clip, head].T
        if allowed is not None:
            scores[~allowed[tile]] = -np.inf
        if bias is not None:
            scores += bias
        # Softmax in place; without the maximum, exp would overflow.
        scores -= scores.max(axis=1, keepdims=True)
        np.exp(scores, out=scores)
        # Normalized after the product, which is narrower than the scores.
        target[tile] = (scores @ values[clip, head]) / scores.sum(axis=1, keepdims=True)

    rows = _parts(length, max(1, CHUNK // keys.shape[2]))
    on_all_cores(work, itertools.product(range(batch), range(n_head), rows))


def gelu(x: Floats) -> Floats:
    """relu(x) - |x| erfc(|x| / sqrt 2) / 2, erfc as Abramowitz and Stegun 7.1.26 (to 1.5e-7)."""
    # Horner's scheme in t, with the factor 1/2 in the coefficients.
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
    """Runs the jobs on threads, each with a BLAS of one thread; raises what one of them raises.

    Callers on several threads take turns. A job must not call this function: it would wait for
    its own turn.
    """

    def quietly(job: _Job) -> None:
        with np.errstate(all="ignore"):  # the decoder checks for NaN and infinity
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


def _extended(x: Floats, constants: mx.array) -> Floats:
    """(B, H, T, head_dim), with (1, H, n, head_dim) behind every clip's."""
    more = np.asarray(constants)
    return np.concatenate([x, np.broadcast_to(more, (len(x), *more.shape[1:]))], axis=2)


def _parts(size: int, step: int) -> list[slice]:
    return [slice(start, start + step) for start in range(0, size, step)]


@lru_cache(maxsize=1)
def _workers() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(int(os.environ.get(THREADS, 0)) or os.cpu_count(), "baldwhisper")


@lru_cache(maxsize=1)
def _blas() -> ThreadpoolController:
    from threadpoolctl import ThreadpoolController  # installed on Linux only

    return ThreadpoolController().select(user_api="blas")
