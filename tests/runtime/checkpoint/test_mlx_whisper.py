"""Folders in mlx-whisper's format as they are found: with any weights file, quantized or not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from baldwhisper_mlx.checkpoint.describe import describe_model, stored_facts
from baldwhisper_mlx.checkpoint.load import LoadedModel, load_model
from baldwhisper_mlx.checkpoint.mlx_whisper_config import fused_groups, fused_name
from baldwhisper_mlx.checkpoint.mlx_whisper_writer import write_folder
from baldwhisper_mlx.cli.main import cli
from baldwhisper_mlx.model.positions import sinusoids
from baldwhisper_mlx.text.openai_vocabulary import special_token_ids
from baldwhisper_mlx.transcription.transcribe import transcribe
from tests.runtime.conftest import tiny_config, tone, write_model

RANKS = 50257
SPECIAL = special_token_ids(RANKS, 51865)
GROUPS = 32


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A narrow model of OpenAI's multilingual vocabulary, as mlx-whisper stores it."""
    root = tmp_path_factory.mktemp("community")
    config = tiny_config(
        n_vocab=51865, special_tokens=SPECIAL, timestamp_begin=RANKS + len(SPECIAL), n_text_layer=2
    )
    source = write_model(root / "source", config)
    weights = dict(mx.load(str(source / "model.safetensors")))
    weights["encoder.positional_embedding"] = mx.array(sinusoids(1500, 32))
    for name, value in weights.items():
        if name.endswith(".qkv.bias") or name.endswith(".kv.bias"):
            parts = np.array(value)
            parts[-64:-32] = 0  # Whisper's keys have no bias
            weights[name] = mx.array(parts)
    mx.eval(weights)
    mx.save_safetensors(str(source / "model.safetensors"), weights)
    return write_folder(source, root / "made")


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    made = tmp_path / "copy"
    made.mkdir()
    for path in folder.iterdir():
        (made / path.name).write_bytes(path.read_bytes())
    return made


def edit(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def rewrite(folder: Path, **tensors: mx.array | None) -> None:
    """Adds tensors to the weights, or removes them."""
    path = folder / "weights.safetensors"
    weights = dict(mx.load(str(path)))
    mx.eval(weights)
    weights |= {name: value for name, value in tensors.items() if value is not None}
    for name in [name for name, value in tensors.items() if value is None]:
        del weights[name]
    path.unlink()
    mx.save_safetensors(str(path), weights)


def states(model: LoadedModel) -> Any:
    mel = mx.random.normal((1, 3000, 80), key=mx.random.key(0))
    return np.array(model.model.encoder(mel))


@pytest.mark.parametrize("name", ["model.safetensors", "weights.safetensors", "weights.npz"])
def test_every_name_of_the_weights(folder: Path, copy: Path, name: str) -> None:
    stored = copy / "weights.safetensors"
    if name == "weights.npz":
        mx.savez(str(copy / name), **dict(mx.load(str(stored))))
        stored.unlink()
    else:
        stored.rename(copy / name)
    loaded = load_model(copy)
    np.testing.assert_array_equal(states(loaded), states(load_model(folder)))
    assert transcribe(tone(), loaded, language="en", temperature=0.0).duration == 1.0
    lines = describe_model(copy)
    assert lines["format"] == "mlx-whisper"
    assert lines["vocabulary"] == "51865 tokens, 99 languages"
    assert lines["embedding"] == "dense, 51865 x 32"
    assert lines["decoder"] == "2 layers, width 32, 2 heads, 64 positions"


@pytest.mark.parametrize("place", [0.3, 0.6, 0.9])
def test_damaged_data_in_an_npz(copy: Path, place: float) -> None:
    """Behind a sound header: found by the checksums of zip, or by zlib."""
    stored = copy / "weights.safetensors"
    arrays = {name: np.array(value) for name, value in dict(mx.load(str(stored))).items()}
    stored.unlink()
    path = copy / "weights.npz"
    np.savez_compressed(path, **arrays)
    data = bytearray(path.read_bytes())
    data[int(place * len(data))] ^= 255
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"weights\.npz: damaged"):
        load_model(copy)


def test_info_prints_it(folder: Path) -> None:
    result = CliRunner().invoke(cli, ["info", str(folder)])
    assert result.exit_code == 0, result.output
    assert "mlx-whisper" in result.output
    assert stored_facts(folder)["quantization"] is None


def quantized(folder: Path, plain: tuple[str, ...] = (), **settings: Any) -> Path:
    """Quantizes all matrices of a folder but some, and says so in the config."""
    path = folder / "weights.safetensors"
    weights = {}
    for name, value in dict(mx.load(str(path))).items():
        matrix = name.removesuffix(".weight")
        if value.ndim != 2 or matrix == name or matrix in plain:
            weights[name] = value
            continue
        parts = mx.quantize(value, group_size=GROUPS, bits=8)
        for leaf, part in zip(("weight", "scales", "biases"), parts, strict=True):
            weights[f"{matrix}.{leaf}"] = part
    mx.eval(weights)
    path.unlink()
    mx.save_safetensors(str(path), weights)
    edit(folder, quantization={"bits": 8, "group_size": GROUPS} | settings)
    return folder


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"mode": "affine"},
        {"decoder.blocks.0.mlp1": {"bits": 8, "group_size": GROUPS}},
        {"decoder.blocks.0.mlp1": True},
    ],
)
def test_quantized(copy: Path, settings: dict[str, Any]) -> None:
    config = load_model(quantized(copy, **settings)).config
    assert config.quantization is not None
    assert config.quantization.bits == 8
    assert "8 bits in groups of 32" in describe_model(copy)["weights"]


def test_matrices_without_scales_stay_as_they_are(copy: Path) -> None:
    query, key, value = (f"encoder.blocks.0.attn.{part}" for part in ("query", "key", "value"))
    quantized(copy, plain=(query, key, value), **{query: False})
    config = load_model(copy).config
    assert config.quantization is not None
    assert config.quantization.overrides == {"encoder.blocks.0.attn.qkv": None}


def test_quantized_in_part(copy: Path) -> None:
    quantized(copy, plain=("encoder.blocks.0.attn.key",))
    with pytest.raises(ValueError, match=r"blocks\.0\.attn\.qkv.* has the parts|differ in type"):
        load_model(copy)


@pytest.mark.parametrize(
    ("quantization", "message"),
    [
        ([1], "bad value for quantization: \\[1\\]; expected an object"),
        ("8 bits", "bad value for quantization: '8 bits'"),
        ({"bits": 8}, "missing group_size"),
        ({"bits": 8, "group_size": 64, "mode": "mxfp4"}, "unknown 'mode'"),
        ({"bits": 8, "group_size": 64, "a.b": 5}, "'a.b': 5"),
        ({"bits": 8, "group_size": 64, "a.b": {"bits": 9, "group_size": 64}}, "bits: 9"),
        ({"bits": 8, "group_size": 64, "a.b": {"bits": 4, "group_size": 64}}, "no matrix"),
        (
            {
                "bits": 8,
                "group_size": 64,
                "x.0.attn.query": {"bits": 4, "group_size": 64},
                "x.0.attn.key": {"bits": 8, "group_size": 64},
            },
            "the parts of x.0.attn.qkv are quantized unlike",
        ),
    ],
)
def test_quantizations_that_are_refused(copy: Path, quantization: Any, message: str) -> None:
    edit(copy, quantization=quantization)
    for read in (load_model, describe_model):
        with pytest.raises(ValueError, match=message):
            read(copy)


def test_other_keys_in_the_config_are_of_no_account(copy: Path) -> None:
    edit(copy, architectures=["Whisper"], model_type="whisper", torch_dtype="float16")
    assert load_model(copy).config.n_text_layer == 2


@pytest.mark.parametrize(
    ("heads", "message"),
    [
        ([[1, 1], [0, 1]], None),
        ([[2, 0]], "alignment_heads"),
        ([[0, -1]], "alignment_heads"),
        ([[0, 0], [0, 0]], "there twice"),
        ([[0, 0, 0]], "alignment_heads of type I32 and shape"),
        ([[0, 0]] * 100, "alignment_heads of type I32 and shape"),
        ([[0.5, 0.0]], "alignment_heads of type F32"),
    ],
)
def test_alignment_heads(copy: Path, heads: Any, message: str | None) -> None:
    rewrite(copy, alignment_heads=mx.array(heads))
    if message is None:
        assert load_model(copy).config.alignment_heads == ((1, 1), (0, 1))
        return
    with pytest.raises(ValueError, match=message):
        load_model(copy)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"decoder.ln.bias": None}, "missing: decoder.ln.bias"),
        ({"surprise\x1b": mx.zeros(2)}, r"unexpected: 'surprise\\x1b'"),
        ({"decoder.ln.bias": mx.zeros(7)}, r"another shape: decoder.ln.bias \[7\]"),
        ({"decoder.ln.bias": mx.zeros(32, mx.int32)}, "another type: decoder.ln.bias I32"),
        ({"encoder.blocks.0.attn.key.weight": None}, r"attn\.qkv\.weight' has the parts"),
        (
            {"encoder.blocks.0.attn.value.bias": None},
            "has the parts 'encoder.blocks.0.attn",
        ),
        ({"encoder.blocks.0.attn.qkv.weight": mx.zeros((96, 32))}, "has the parts"),
        ({"encoder.blocks.0.attn.key.weight": mx.zeros((32, 3))}, "differ in type or shape"),
        ({"encoder.conv1.weight": None}, "no encoder.conv1.weight"),
    ],
)
def test_tensors_that_do_not_fit(copy: Path, tensors: Any, message: str) -> None:
    rewrite(copy, **tensors)
    for read in (load_model, describe_model):
        with pytest.raises(ValueError, match=message) as caught:
            read(copy)
        assert str(caught.value).startswith(str(copy / "weights.safetensors"))


@pytest.mark.parametrize("n_vocab", [51865 + 2, 51872, 51968])
def test_a_padded_vocabulary_is_refused(copy: Path, n_vocab: int) -> None:
    """Its last rows are no timestamps, so their meaning would be guessed."""
    rewrite(copy, **{"decoder.token_embedding.weight": mx.zeros((n_vocab, 32))})
    edit(copy, n_vocab=n_vocab)
    with pytest.raises(ValueError, match=f"n_vocab is {n_vocab}: .* rows of padding"):
        load_model(copy)


values = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
values = values | st.lists(values, max_size=3) | st.dictionaries(st.text(max_size=8), values)
keys = st.sampled_from(["quantization", "n_vocab", "n_text_head", "n_mels", "model_type", "x"])


@settings(
    max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(key=keys, value=values)
def test_any_config_is_refused_or_sound(copy: Path, key: str, value: Any) -> None:
    sound = (copy / "config.json").read_bytes()
    edit(copy, **{key: value})
    try:
        describe_model(copy)
    except ValueError as error:
        if not str(error).startswith(str(copy)):
            raise
    finally:
        (copy / "config.json").write_bytes(sound)


def test_names_of_fused_tensors() -> None:
    names = [
        f"a.0.attn.{part}.{leaf}" for part in ("value", "query") for leaf in ("weight", "bias")
    ]
    assert fused_groups([*names, "a.0.attn.key.weight", "b"]) == {
        "a.0.attn.qkv.weight": [f"a.0.attn.{p}.weight" for p in ("query", "key", "value")],
        "a.0.attn.qkv.bias": [f"a.0.attn.{p}.bias" for p in ("query", "value")],
        "b": ["b"],
    }
    assert fused_name("a.cross_attn.query.weight") == "a.cross_attn.query.weight"
    assert fused_name("a.cross_attn.key") == "a.cross_attn.kv"
