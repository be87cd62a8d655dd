"""The list of tensors that a config asks for is that of the model; and what is compared with it."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import pytest
from mlx.utils import tree_flatten

from baldwhisper_mlx.checkpoint.tensor_header import TensorInfo
from baldwhisper_mlx.checkpoint.tensors import (
    DENSE_IDS,
    check_indices,
    check_tensors,
    expected_tensors,
)
from baldwhisper_mlx.checkpoint.weight_checks import check_weights, header_of
from baldwhisper_mlx.model.quantize import quantize_model
from baldwhisper_mlx.model.whisper import Whisper
from baldwhisper_mlx.quantization_config import Grouping, Quantization
from tests.runtime.conftest import tiny_config

FACTORS = {
    "embedding_rank": 32,
    "embedding_projections": "separate",
    "embedding_mean": True,
    "embedding_dense_rows": 5,
}
QUANTIZED = Quantization(bits=8, group_size=32)
MIXED = Quantization(
    bits=4,
    group_size=32,
    overrides={
        "encoder.blocks.0.mlp1": None,
        "decoder.blocks.1.attn.qkv": Grouping(bits=2, group_size=32),
    },
)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"embedding_rank": 8},
        {"embedding_rank": 8, "embedding_dense_rows": 3},
        FACTORS,
        {"quantization": QUANTIZED},
        {"quantization": MIXED, "n_audio_layer": 2, "n_text_layer": 3},
        FACTORS | {"quantization": QUANTIZED},
    ],
)
def test_the_list_is_that_of_the_model(changes: dict[str, Any]) -> None:
    config = tiny_config(**changes)
    model = Whisper(config)
    if config.quantization is not None:
        quantize_model(model, config.quantization)
    parameters = dict(tree_flatten(model.parameters()))
    assert header_of(parameters) == expected_tensors(config)
    check_weights(parameters | _ids(config), config, "model")


def _ids(config: Any) -> dict[str, mx.array]:
    rows = config.embedding_dense_rows
    return {DENSE_IDS: mx.arange(rows)} if rows else {}


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_floats_have_the_type_of_the_config(dtype: Any) -> None:
    config = tiny_config(dtype=dtype)
    parameters = {
        name: value.astype(getattr(mx, dtype))
        for name, value in tree_flatten(Whisper(config).parameters())
    }
    assert header_of(parameters) == expected_tensors(config)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"overrides": {"decoder.blocks.7.mlp1": None}}, "names no matrix .*blocks.7"),
        ({"overrides": {"\x1b": None}}, r"names no matrix of this model: '\\x1b'"),
        ({"group_size": 64}, "rows of 32 numbers do not divide into groups of 64"),
    ],
)
def test_quantizations_that_do_not_fit(changes: dict[str, Any], message: str) -> None:
    quantization = Quantization(**({"bits": 8, "group_size": 32} | changes))
    with pytest.raises(ValueError, match=message):
        expected_tensors(tiny_config(quantization=quantization))


def test_what_differs_is_named() -> None:
    a, b = TensorInfo("F32", (2,)), TensorInfo("F16", (2,))
    check_tensors("f", {"x": a}, {"x": a})
    check_tensors("f", {"x": a}, {"x": b}, any_float=True)
    for expected, found, message in (
        ({"x": a}, {}, "f: tensors missing: x"),
        ({}, {"x\x1b": a}, r"f: tensors unexpected: 'x\\x1b'"),
        ({"x": a}, {"x": TensorInfo("F32", (3,))}, r"another shape: x \[3\] instead of \[2\]"),
        ({"x": a}, {"x": b}, "another type: x F16 instead of F32"),
        ({}, {str(i): a for i in range(9)}, "and 4 more"),
    ):
        with pytest.raises(ValueError, match=message):
            check_tensors("f", expected, found)
    for wrong in (TensorInfo("I32", (2,)), TensorInfo("F64", (2,))):
        with pytest.raises(ValueError, match="another type"):
            check_tensors("f", {"x": a}, {"x": wrong}, any_float=True)


@pytest.mark.parametrize("wrong", [-1, 5, 2**31 - 1, -(2**31)])
def test_indices_outside_what_they_index(wrong: int) -> None:
    check_indices("f", "ids", [4, 0, 2], 5)
    with pytest.raises(ValueError, match=f"f: ids must be .* from 0 to 4, but has {wrong}"):
        check_indices("f", "ids", [0, wrong], 5)
    with pytest.raises(ValueError, match="but has 3 twice"):
        check_indices("f", "ids", [3, 0, 3], 5)
