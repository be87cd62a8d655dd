"""Weights expanded and laid out by NumPy, compared with MLX's own functions."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest

from baldwhisper_mlx.ops.cpu_weights import expand, to_float32, turns
from baldwhisper_mlx.quantization_config import BITS

SHAPES = [(130, 64), (64, 128), (1, 64), (64, 64), (200, 192)]


def is_turned(x: mx.array) -> bool:
    """Whether the columns of a matrix are contiguous."""
    array = np.asarray(x)
    return array.strides[0] < array.strides[1]


@pytest.mark.parametrize("group_size", [32, 64])
@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("shape", SHAPES)
def test_expanded_is_what_mlx_expands(shape: tuple[int, int], bits: int, group_size: int) -> None:
    weight = mx.random.normal(shape, key=mx.random.key(bits)).astype(mx.float16)
    packed, scales, biases = mx.quantize(weight, group_size=group_size, bits=bits)
    wide = [packed, scales.astype(mx.float32), biases.astype(mx.float32)]
    expected = mx.dequantize(*wide, group_size=group_size, bits=bits)
    found = expand(packed, scales, biases, bits=bits, group_size=group_size)
    assert found.dtype == mx.float32
    assert mx.array_equal(found, expected)
    assert is_turned(found) == (shape[0] >= shape[1] and shape[0] > 1)


@pytest.mark.parametrize("dtype", [mx.float16, mx.bfloat16, mx.float32])
@pytest.mark.parametrize("shape", [(130, 65), (65, 130), (77,), (5, 3, 2), (1, 4)])
def test_any_type_becomes_float32(shape: tuple[int, ...], dtype: mx.Dtype) -> None:
    x = mx.random.normal(shape, key=mx.random.key(0)).astype(dtype)
    found = to_float32(x)
    assert found.dtype == mx.float32
    assert mx.array_equal(found, x.astype(mx.float32))
    if len(shape) == 2 and min(shape) > 1:
        assert is_turned(found) == turns(shape)
        assert not is_turned(to_float32(x, turn=False))
