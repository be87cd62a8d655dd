"""What the machine can do at best, measured in the same run as the models.

Decoding a token streams the decoder's weights through the processor, so memory bandwidth limits
it; encoding multiplies matrices, so their rate does. Both are measured with MLX itself, on the
device and in the dtype that the models use: what MLX cannot reach here, no model of it can.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import mlx.core as mx

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
