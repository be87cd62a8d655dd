"""Weights as a CPU wants them: float32, expanded, the longer side of a matrix contiguous.

NumPy writes them tile by tile into memory of MLX, so that no tensor is in memory twice. MLX's own
dequantize takes ten times as long on a CPU (docs/log.md).
"""

from __future__ import annotations

from collections.abc import Callable

import mlx.core as mx
import numpy as np
import numpy.typing as npt

_ROWS = 64
"""Rows of a tile: its numbers stay in the cache, and fill cache lines of either orientation."""

Floats = npt.NDArray[np.float32]
Words = npt.NDArray[np.uint32]


def to_float32(value: mx.array, *, turn: bool = True) -> mx.array:
    """An array of any floating-point type in float32; a matrix laid out by `turns`, if asked."""
    turned = turn and turns(value.shape)
    if value.dtype == mx.float32 and not turned:
        return value
    mx.eval(value)
    is_brain_float = value.dtype == mx.bfloat16  # which NumPy lacks: the upper half of a float32
    source = np.asarray(value.view(mx.uint16) if is_brain_float else value)

    def rows(part: slice) -> Floats:
        if is_brain_float:
            upper = source[part].astype(np.uint32) << np.uint32(16)
            return np.asarray(upper.view(np.float32))
        return np.asarray(source[part], np.float32)

    return _filled(value.shape, rows, turned=turned)


def expand(
    packed: mx.array, scales: mx.array, biases: mx.array, *, bits: int, group_size: int
) -> mx.array:
    """The float32 values of a matrix in MLX's affine quantization, as `mx.dequantize`.

    Args:
        packed: (n, m * bits / 32) uint32.
        scales: (n, m / group_size).
        biases: (n, m / group_size).
        bits: of an integer, 2 to 8.
        group_size: integers that share a scale and a bias.

    Returns:
        (n, m), laid out by `turns`.
    """
    scales, biases = scales.astype(mx.float32), biases.astype(mx.float32)
    mx.eval(packed, scales, biases)
    words, scale, bias = np.asarray(packed), np.asarray(scales), np.asarray(biases)
    columns = words.shape[1] * 32 // bits

    def rows(part: slice) -> Floats:
        grouped = unpack(words[part], bits).reshape(-1, scale.shape[1], group_size)
        grouped *= scale[part, :, None]
        grouped += bias[part, :, None]
        return grouped.reshape(-1, columns)

    shape = len(words), columns
    return _filled(shape, rows, turned=turns(shape))


def unpack(words: Words, bits: int) -> Floats:
    """The integers of packed rows (n, k) as float32, (n * k * 32 / bits,).

    Eight integers take `bits` bytes, little-endian. The first and the last four of them are read
    as 32-bit numbers at any address.
    """
    count = words.size * 4 // bits
    # The last number that is read reaches past the data.
    data = np.zeros(words.size * 4 + 4, np.uint8)
    data[:-4] = np.ascontiguousarray(words).reshape(-1).view(np.uint8)
    result, integers = np.empty((count, 8), np.float32), np.empty(count, np.uint32)
    for first in (0, 4):
        byte, shift = divmod(first * bits, 8)
        numbers = np.ndarray((count,), "<u4", data, byte, (bits,)).copy()  # aligned from here on
        for i in range(4):
            np.right_shift(numbers, np.uint32(shift + i * bits), out=integers)
            np.bitwise_and(integers, np.uint32(2**bits - 1), out=integers)
            result[:, first + i] = integers
    return result.reshape(-1)


def turns(shape: tuple[int, ...]) -> bool:
    """Whether a matrix lies transposed in memory.

    BLAS multiplies one row by a matrix twice as fast if its longer side, here that of the outputs,
    is contiguous (docs/log.md).
    """
    return len(shape) == 2 and shape[0] >= shape[1]


def _filled(shape: tuple[int, ...], rows: Callable[[slice], Floats], *, turned: bool) -> mx.array:
    """An array of MLX with the rows that the function gives, written tile by tile."""
    result = mx.zeros(shape[::-1] if turned else shape)
    mx.eval(result)
    target = np.asarray(result).T if turned else np.asarray(result)
    for first in range(0, shape[0], _ROWS):
        part = slice(first, first + _ROWS)
        target[part] = rows(part)
    return result.T if turned else result
