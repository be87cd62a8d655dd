"""Quantized exports: which matrices get how many bits, and that the result runs as planned."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from baldwhisper_convert.cli.main import main
from baldwhisper_convert.export.mlx import export_mlx, mlx_tensors
from baldwhisper_convert.export.quantize import QuantizeOptions, quantizable, quantized
from baldwhisper_convert.readers.read import read_checkpoint
from baldwhisper_mlx import load_model
from baldwhisper_mlx.config import ModelConfig
from baldwhisper_mlx.quantization_config import BITS, GROUP_SIZES, Grouping, Quantization
from tests.support import tiny

EMBEDDING = "decoder.token_embedding"


def model(form: str = "untied") -> dict[str, torch.Tensor]:
    """A tiny model under the exported folder's names, float32."""
    return mlx_tensors(tiny.tiny_form(form).state, "float32", "tiny")


@given(
    bits=st.sampled_from(BITS),
    group_size=st.sampled_from(GROUP_SIZES),
    columns=st.integers(1, 300),
)
@settings(deadline=None)
def test_the_largest_group_that_divides_is_taken(bits: int, group_size: int, columns: int) -> None:
    tensors = {"encoder.blocks.0.mlp1.weight": torch.zeros(4, columns)}
    own = (
        QuantizeOptions(bits=bits, group_size=group_size).plan(tensors).of("encoder.blocks.0.mlp1")
    )
    fitting = [size for size in GROUP_SIZES if size <= group_size and columns % size == 0]
    assert own == (Grouping(bits=bits, group_size=max(fitting)) if fitting else None)


@given(
    shape=st.tuples(st.integers(1, 9), st.sampled_from([32, 64, 96, 128])),
    bits=st.sampled_from(BITS),
    seed=st.integers(0, 99),
)
@settings(deadline=None, max_examples=40)
def test_values_change_by_at_most_one_step(shape: tuple[int, int], bits: int, seed: int) -> None:
    """Affine rounding over a group of range R into 2^bits levels moves a value by R / 2^bits."""
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    tensors = {"encoder.blocks.0.mlp1.weight": matrix}
    quantization = Quantization(bits=bits, group_size=32)
    parts = quantized(tensors, quantization, "float32", "x")
    arrays = [
        mx.array(parts[f"encoder.blocks.0.mlp1.{leaf}"].numpy())
        for leaf in ("weight", "scales", "biases")
    ]
    found = torch.from_numpy(np.array(mx.dequantize(*arrays, group_size=32, bits=bits)))
    groups = matrix.reshape(-1, 32)
    span = torch.maximum(groups.amax(1), torch.zeros(1)) - groups.amin(1).clamp(max=0)
    error = (found - matrix).reshape(-1, 32).abs().amax(1)
    # MLX moves the scale a little, so that zero or the larger end is exact.
    assert bool((error <= 1.5 * span / (2**bits - 1) + 1e-6).all())


def test_what_is_quantized() -> None:
    paths = dict(quantizable(model()))
    assert f"{EMBEDDING}.factors" in paths
    assert paths["encoder.blocks.0.attn.qkv"] == "encoder.blocks.0.attn.qkv.weight"
    kept = model().keys() - paths.values()
    left = {name for name in kept if not name.endswith("bias") and "ln" not in name}
    assert left == {
        "encoder.conv1.weight",
        "encoder.conv2.weight",
        "encoder.positional_embedding",
        "decoder.positional_embedding",
        f"{EMBEDDING}.mean",
        f"{EMBEDDING}.dense_ids",
    }


def test_a_matrix_that_is_too_narrow_stays() -> None:
    """The factors of the tiny model have rank 16, less than any group."""
    plan = QuantizeOptions(bits=8, group_size=128).plan(model())
    assert plan.of(f"{EMBEDDING}.factors") is None
    assert plan.of(f"{EMBEDDING}.input_projection") == Grouping(bits=8, group_size=64)
    assert plan.of("encoder.blocks.0.mlp2") == Grouping(bits=8, group_size=128)


@pytest.mark.parametrize("embedding", [None, 4, "same"])
def test_the_embedding_has_separate_bits(embedding: Any) -> None:
    plan = QuantizeOptions(bits=8, embedding=embedding).plan(model("dense"))
    bits = 8 if embedding == "same" else embedding
    expected = None if bits is None else Grouping(bits=bits, group_size=64)
    assert plan.of(EMBEDDING) == expected
    assert plan.of("decoder.blocks.0.mlp1") == Grouping(bits=8, group_size=64)


def test_the_last_matching_pattern_applies() -> None:
    patterns = (("decoder.*", 6), ("*.mlp?", 4), ("decoder.blocks.0.mlp1", None))
    plan = QuantizeOptions(bits=8, embedding=3, overrides=patterns).plan(model("dense"))
    assert plan.of(EMBEDDING) == Grouping(bits=6, group_size=64)
    assert plan.of("decoder.blocks.0.attn.qkv") == Grouping(bits=6, group_size=64)
    assert plan.of("decoder.blocks.1.mlp1") == Grouping(bits=4, group_size=64)
    assert plan.of("decoder.blocks.0.mlp1") is None
    assert plan.of("encoder.blocks.0.attn.out") == Grouping(bits=8, group_size=64)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"bits": 7}, "quantization.bits: 7"),
        ({"bits": 8, "group_size": 48}, "quantization.group_size: 48"),
        ({"bits": 8, "embedding": 1}, "quantization.bits: 1"),
        ({"bits": 8, "overrides": (("*", 9),)}, "quantization.bits: 9"),
        (
            {"bits": 8, "overrides": (("decoder.block.*", 4),)},
            r"block\.\*' matches no matrix",
        ),
    ],
)
def test_bad_options(options: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        QuantizeOptions(**options).plan(model())


def test_what_overflows_is_refused() -> None:
    tensors = {"encoder.blocks.0.mlp1.weight": torch.full((2, 64), 1e6)}
    with pytest.raises(ValueError, match=r"x: encoder.*mlp1\..* overflow float16"):
        quantized(tensors, Quantization(bits=8, group_size=64), "float16", "x")


def runtime_logits(folder: Path) -> Any:
    runtime = load_model(folder, dtype="float32").model
    cache = runtime.make_cache()
    runtime.encode(mx.random.normal((1, 3000, 80), key=mx.random.key(0)), [3000], cache)
    return np.array(runtime.logits(runtime.decoder(mx.array([[1, 2, 3, 4]]), cache)))


@pytest.mark.parametrize("form", tiny.FORMS)
def test_the_export_runs_nearly_as_the_source(form: str, tmp_path: Path) -> None:
    checkpoint = tiny.tiny_form(form)
    plain = export_mlx(checkpoint, tmp_path / "plain", dtype="float32")
    folder = export_mlx(checkpoint, tmp_path / "q", quantize=QuantizeOptions(bits=8))
    expected = runtime_logits(plain)
    error = np.abs(runtime_logits(folder) - expected)
    assert 0 < error.mean() < 0.03 * np.abs(expected).mean()
    weights = "model.safetensors"
    assert (folder / weights).stat().st_size < 0.45 * (plain / weights).stat().st_size


def test_the_folder(tmp_path: Path) -> None:
    options = QuantizeOptions(bits=6, group_size=32, embedding=4, overrides=(("*.mlp2", None),))
    folder = export_mlx(tiny.tiny_form("tied"), tmp_path / "m", quantize=options)
    config = ModelConfig.from_file(folder / "config.json")
    assert config.dtype == "float16"
    assert config.quantization == options.plan(model("tied"))
    tensors = load_file(folder / "model.safetensors")
    assert tensors[f"{EMBEDDING}.input_projection.weight"].shape == (16, 64 * 4 // 32)
    assert tensors[f"{EMBEDDING}.factors"].dtype == torch.float16
    assert tensors["encoder.blocks.0.mlp2.weight"].dtype == torch.float16
    assert tensors["encoder.blocks.0.mlp1.weight"].dtype == torch.uint32
    assert tensors["encoder.blocks.0.mlp1.scales"].dtype == torch.float16
    card = (folder / "README.md").read_text()
    assert "| weights stored as | float16, matrices in 6 bits in groups of 32 |" in card
    assert "in 4 bits in groups of 32" in card
    with pytest.raises(ValueError, match="quantized, which cannot be undone"):
        read_checkpoint(folder)


def test_an_mlx_community_model_can_be_quantized_again(tmp_path: Path, hf_folder: Path) -> None:
    checkpoint = tiny.tiny_checkpoint()
    settings = {"group_size": 32, "bits": 8}
    source = tiny.tiny_mlx_folder(
        tmp_path / "source", checkpoint.dims, checkpoint.state, quantization=settings
    )
    with pytest.warns(UserWarning, match="quantized to 8 bits; the lost precision"):
        read = read_checkpoint(source, tokenizer=str(hf_folder))
    options = QuantizeOptions(bits=8, group_size=32)
    first = export_mlx(read, tmp_path / "float", dtype="float32")
    second = export_mlx(read, tmp_path / "again", dtype="float32", quantize=options)
    expected = runtime_logits(first)
    # MLX does not find the same scales again, so it costs about as much as the first time.
    error = np.abs(runtime_logits(second) - expected)
    assert error.mean() < 0.03 * np.abs(expected).mean()


class TestCommand:
    def run(self, *arguments: str | Path) -> Any:
        return CliRunner().invoke(main, ["export", *map(str, arguments)])

    def test_options_reach_the_export(self, hf_folder: Path, tmp_path: Path) -> None:
        options = ["--quantize", "8", "--group-size", "32", "--quantize-embedding", "none"]
        options += ["--quantize-override", "decoder.*.mlp1=4", "--quantize-override", "*.out=none"]
        result = self.run(hf_folder, tmp_path / "m", *options)
        assert result.exit_code == 0, result.output
        assert "as float16 and 8 bits" in result.output
        raw = json.loads((tmp_path / "m" / "config.json").read_text())["quantization"]
        assert (raw["bits"], raw["group_size"]) == (8, 32)
        assert raw["overrides"][EMBEDDING] is None
        assert raw["overrides"]["decoder.blocks.2.mlp1"] == {"bits": 4, "group_size": 32}
        assert raw["overrides"]["encoder.blocks.0.attn.out"] is None
        load_model(tmp_path / "m")

    @pytest.mark.parametrize(
        "options",
        [
            ["--quantize", "7"],
            ["--quantize", "8", "--group-size", "16"],
            ["--quantize", "8", "--quantize-embedding", "all"],
            ["--quantize", "8", "--quantize-override", "decoder.*"],
            ["--quantize", "8", "--quantize-override", "decoder.*=9"],
            ["--quantize-embedding", "4"],
            ["--quantize-override", "decoder.*=4"],
            ["--quantize", "8", "--format", "hf"],
        ],
    )
    def test_wrong_usage(self, options: list[str], hf_folder: Path, tmp_path: Path) -> None:
        result = self.run(hf_folder, tmp_path / "m", *options)
        assert result.exit_code == 2
        assert not (tmp_path / "m").exists()

    def test_a_pattern_that_fits_nothing(self, hf_folder: Path, tmp_path: Path) -> None:
        options = ["--quantize", "8", "--quantize-override", "decoder.layers.*=4"]
        result = self.run(hf_folder, tmp_path / "m", *options)
        assert result.exit_code == 1
        assert "'decoder.layers.*' matches no matrix of this model" in result.stderr
        assert list(tmp_path.iterdir()) == []
