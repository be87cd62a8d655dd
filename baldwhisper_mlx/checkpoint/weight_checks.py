"""Tensors in memory, compared with those that a model must have.

The door through which all weights pass: behind it, stored indices are trusted.
"""

from __future__ import annotations

from typing import Any

import mlx.core as mx

from baldwhisper_mlx.checkpoint.tensor_header import Header, TensorInfo
from baldwhisper_mlx.checkpoint.tensors import (
    DENSE_IDS,
    check_indices,
    check_tensors,
    expected_tensors,
)
from baldwhisper_mlx.config import ModelConfig

_TYPES = {
    mx.bool_: "BOOL", mx.uint8: "U8", mx.int8: "I8", mx.uint16: "U16", mx.int16: "I16",
    mx.float16: "F16", mx.bfloat16: "BF16", mx.uint32: "U32", mx.int32: "I32", mx.float32: "F32",
    mx.uint64: "U64", mx.int64: "I64", mx.float64: "F64",
}  # fmt: skip


def check_weights(weights: dict[str, mx.array], config: ModelConfig, source: str) -> None:
    """Checks names, shapes and types of all tensors, and the values of those that are indices.

    Args:
        weights: by name, under the names of docs/format.md; read lazily, and only the indices are.
        config: says which tensors there must be.
        source: file or folder they come from, for messages.

    Raises:
        ValueError: tensors are missing, unexpected, or of another shape or type; or an index lies
            outside what it indexes, where MLX would read or write other memory.
    """
    check_tensors(source, expected_tensors(config), header_of(weights), any_float=True)
    if DENSE_IDS in weights:
        ids: Any = weights[DENSE_IDS].tolist()
        check_indices(source, DENSE_IDS, ids, config.n_vocab)


def header_of(tensors: dict[str, mx.array]) -> Header:
    """Type and shape of tensors by name."""
    return {
        name: TensorInfo(_TYPES.get(value.dtype, str(value.dtype)), tuple(value.shape))
        for name, value in tensors.items()
    }
