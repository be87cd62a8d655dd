"""Quantized models: the same numbers whether the matrices stay quantized or are expanded."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from mlx import nn
from mlx.utils import tree_flatten

import baldwhisper_mlx
from baldwhisper_mlx.checkpoint.describe import count_parameters, describe_model
from baldwhisper_mlx.checkpoint.load import build_model, load_model, read_weights
from baldwhisper_mlx.checkpoint.tensor_header import read_tensor_header
from baldwhisper_mlx.config import ModelConfig
from baldwhisper_mlx.model.embedding import MATRICES, FactorizedEmbedding, QuantizedMatrix
from baldwhisper_mlx.model.quantize import quantize_model
from baldwhisper_mlx.model.whisper import Whisper
from baldwhisper_mlx.quantization_config import BITS, Grouping, Quantization
from tests.runtime.conftest import tiny_config, tone, write_model

FACTORIZED: dict[str, Any] = {
    "embedding_rank": 32,
    "embedding_projections": "separate",
    "embedding_mean": True,
    "embedding_dense_rows": 5,
}
FORMS: dict[str, dict[str, Any]] = {
    "dense": {},
    "shared": {"embedding_rank": 32},
    "all": FACTORIZED,
}
MEL = mx.random.normal((1, 3000, 80), key=mx.random.key(0))
TOKENS = mx.array([[1, 2, 3, 260, 4]])


def write_quantized(
    folder: Path, quantization: Quantization, form: dict[str, Any], dtype: str = "float32"
) -> Path:
    """A model of random weights, quantized tensor by tensor with MLX's own function."""
    plain = tiny_config(**form, dtype=dtype)
    write_model(folder, plain)
    config = tiny_config(**form, dtype=dtype, quantization=quantization)
    source: Any = mx.load(str(folder / "model.safetensors"))
    weights = {}
    for name, value in source.items():
        path = name.removesuffix(".weight")
        matrix = value.ndim == 2 and (name.endswith(".weight") or name.split(".")[-1] in MATRICES)
        own = quantization.of(path) if matrix else None
        floating = mx.issubdtype(value.dtype, mx.floating)
        value = value.astype(getattr(mx, dtype)) if floating else value
        if own is None:
            weights[name] = value
            continue
        parts = mx.quantize(value, group_size=own.group_size, bits=own.bits)
        for leaf, part in zip(("weight", "scales", "biases"), parts, strict=True):
            weights[f"{path}.{leaf}"] = part
    mx.save_safetensors(str(folder / "model.safetensors"), weights)
    (folder / "config.json").write_text(json.dumps(config.to_dict()), encoding="utf-8")
    return folder


def logits(model: Whisper) -> Any:
    cache = model.make_cache()
    model.encode(MEL, [3000], cache)
    return np.array(model.logits(model.decoder(TOKENS, cache)))


def build(folder: Path, dtype: str | None, *, keep: bool) -> Whisper:
    config = ModelConfig.from_file(folder / "config.json")
    weights = read_weights(folder / "model.safetensors")
    return build_model(weights, config, str(folder), dtype, keep_quantized=keep)


def both(folder: Path) -> tuple[Whisper, Whisper]:
    """The model with its matrices kept quantized, and with them expanded, both in float32."""
    return build(folder, "float32", keep=True), build(folder, "float32", keep=False)


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("form", FORMS)
def test_kept_and_expanded_give_the_same_logits(bits: int, form: str, tmp_path: Path) -> None:
    quantization = Quantization(bits=bits, group_size=32)
    kept, expanded = both(write_quantized(tmp_path / "m", quantization, FORMS[form]))
    expected = logits(expanded)
    np.testing.assert_allclose(logits(kept), expected, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("form", FORMS)
def test_more_bits_are_nearer_to_the_unquantized_model(form: str, tmp_path: Path) -> None:
    plain = load_model(write_model(tmp_path / "plain", tiny_config(**FORMS[form])), dtype="float32")
    expected = logits(plain.model)
    errors = []
    for bits in (3, 5, 8):
        quantization = Quantization(bits=bits, group_size=32)
        folder = write_quantized(tmp_path / str(bits), quantization, FORMS[form])
        errors.append(np.abs(logits(both(folder)[1]) - expected).mean())
    assert errors[0] > errors[1] > errors[2] > 0
    assert errors[2] < 0.05 * np.abs(expected).mean()


def test_what_is_kept_is_quantized_and_what_is_expanded_is_not(tmp_path: Path) -> None:
    quantization = Quantization(
        bits=8,
        group_size=32,
        overrides={
            "decoder.token_embedding.dense_rows": Grouping(bits=4, group_size=32),
            "decoder.token_embedding.input_projection": None,
            "encoder.blocks.0.mlp1": None,
        },
    )
    folder = write_quantized(tmp_path / "m", quantization, FACTORIZED)
    kept, expanded = both(folder)
    embedding = kept.decoder.token_embedding
    assert isinstance(embedding["factors"], QuantizedMatrix)
    assert embedding["dense_rows"].bits == 4
    assert isinstance(embedding["input_projection"], mx.array)
    block = kept.encoder.blocks[0]
    assert isinstance(block.mlp2, nn.QuantizedLinear)
    assert isinstance(block.mlp1, nn.Linear)
    types = {value.dtype for _, value in tree_flatten(expanded.parameters())}
    assert types == {mx.float32, mx.int32}
    expected = logits(expanded)
    np.testing.assert_allclose(logits(kept), expected, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_kept_weights_take_the_type_that_is_asked_for(dtype: str, tmp_path: Path) -> None:
    quantization = Quantization(bits=8, group_size=32)
    folder = write_quantized(tmp_path / "m", quantization, FACTORIZED, dtype="float16")
    model = build(folder, dtype, keep=True)
    for name, value in tree_flatten(model.parameters()):
        packed = name.endswith(".weight") and f"{name[:-7]}.scales" in dict(
            tree_flatten(model.parameters())
        )
        wanted = mx.uint32 if packed else getattr(mx, dtype)
        assert value.dtype == (mx.int32 if name.endswith("dense_ids") else wanted), name
    assert np.isfinite(logits(model)).all()


@pytest.mark.parametrize("dtype", [None, "float32"])
def test_expanded_weights_are_exactly_scale_times_integer(
    dtype: str | None, tmp_path: Path
) -> None:
    quantization = Quantization(bits=4, group_size=32)
    folder = write_quantized(tmp_path / "m", quantization, {}, dtype="float16")
    model = build(folder, dtype, keep=False)
    stored: Any = mx.load(str(folder / "model.safetensors"))
    parts = [stored[f"encoder.blocks.0.mlp1.{leaf}"] for leaf in ("weight", "scales", "biases")]
    parts[1:] = [part.astype(mx.float32) for part in parts[1:]]
    exact = mx.dequantize(*parts, group_size=32, bits=4)
    found = model.encoder.blocks[0].mlp1.weight
    assert found.dtype == (mx.float32 if dtype else mx.float16)
    assert mx.array_equal(found, exact.astype(found.dtype))


def test_a_quantized_model_transcribes(tmp_path: Path) -> None:
    folder = write_quantized(tmp_path / "m", Quantization(bits=8, group_size=32), FACTORIZED)
    transcript = baldwhisper_mlx.transcribe(tone(1), str(folder), language="en", temperature=0.0)
    assert transcript.duration == 1.0


def test_info(tmp_path: Path) -> None:
    quantization = Quantization(
        bits=8, group_size=32, overrides={"decoder.token_embedding.factors": None}
    )
    folder = write_quantized(tmp_path / "m", quantization, FACTORIZED)
    config = tiny_config(**FACTORIZED)
    plain = write_model(tmp_path / "plain", config)
    header = read_tensor_header(folder / "model.safetensors")
    quantized_config = ModelConfig.from_file(folder / "config.json")
    assert count_parameters(header, quantized_config) == count_parameters(
        read_tensor_header(plain / "model.safetensors"), config
    )
    weights = describe_model(folder)["weights"]
    assert weights.count("8 bits in groups of 32") == 3
    assert weights.count("in float32") == 3


Edit = Callable[[dict[str, Any]], dict[str, Any]]


@pytest.mark.parametrize(
    ("form", "changes", "match"),
    [
        ({}, {"overrides": {"encoder.blocks.1.mlp1": None}}, r"no matrix.*encoder\.blocks\.1"),
        ({}, {"overrides": {"encoder.conv1": None}}, r"names no matrix.*encoder\.conv1"),
        ({}, {"overrides": {"encoder.blocks.0.mlp1": None}}, r"unexpected: .encoder.*mlp1\.biases"),
        ({}, {"bits": 4}, "of another shape"),
        ({}, {"group_size": 64}, "its rows of 32 numbers do not divide into groups of 64"),
        ({"embedding_rank": 24}, {}, r"token_embedding\.factors: its rows of 24 numbers"),
    ],
)
def test_what_does_not_fit_is_named(
    form: dict[str, Any], changes: dict[str, Any], match: str, tmp_path: Path
) -> None:
    overrides = {"decoder.token_embedding.factors": None} if form else {}
    quantization = Quantization(bits=8, group_size=32, overrides=overrides)
    folder = write_quantized(tmp_path / "m", quantization, form)
    raw = json.loads((folder / "config.json").read_text())
    raw["quantization"] = {"bits": 8, "group_size": 32, "overrides": {}} | changes
    (folder / "config.json").write_text(json.dumps(raw))
    with pytest.raises(ValueError, match=match):
        load_model(folder)


def test_a_float_file_is_no_quantized_model(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "m", tiny_config())
    config = tiny_config(quantization=Quantization(bits=8, group_size=32))
    (folder / "config.json").write_text(json.dumps(config.to_dict()))
    with pytest.raises(ValueError, match=r"missing: .*biases"):
        load_model(folder)


def test_every_matrix_of_the_model_is_quantized() -> None:
    """Only vectors, convolutions and positions keep their type: nothing was forgotten."""
    model = Whisper(tiny_config(**FACTORIZED))
    quantize_model(model, Quantization(bits=8, group_size=32))
    left = {
        name
        for name, value in tree_flatten(model.parameters())
        if value.ndim > 1 and not name.endswith((".scales", ".biases"))
        if value.dtype != mx.uint32
    }
    assert left == {
        "encoder.conv1.weight",
        "encoder.conv2.weight",
        "encoder.positional_embedding",
        "decoder.positional_embedding",
    }


@pytest.mark.parametrize("transpose", [True, False])
def test_a_quantized_matrix_multiplies_and_gathers(transpose: bool) -> None:
    plain = mx.random.normal((40, 64), key=mx.random.key(1))
    matrix = QuantizedMatrix(40, 64, bits=6, group_size=32)
    matrix.weight, matrix.scales, matrix.biases = mx.quantize(plain, group_size=32, bits=6)
    parts = (matrix.weight, matrix.scales, matrix.biases)
    exact = mx.dequantize(*parts, group_size=32, bits=6)
    x = mx.random.normal((3, 2, 64 if transpose else 40), key=mx.random.key(2))
    expected = x @ (exact.T if transpose else exact)
    np.testing.assert_allclose(matrix.multiply(x, transpose=transpose), expected, atol=1e-4)
    ids = mx.array([[3, 0], [39, 3]])
    assert mx.array_equal(matrix.rows(ids), exact[ids])
    assert isinstance(FactorizedEmbedding(8, 4, 2)["factors"], mx.array)
