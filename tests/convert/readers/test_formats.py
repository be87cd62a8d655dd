"""Every source format gives the same canonical state, compared with the original models."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from baldwhisper_convert.checkpoint.checkpoint import Checkpoint
from baldwhisper_convert.checkpoint.state import State
from baldwhisper_convert.readers.read import read_checkpoint
from baldwhisper_convert.readers.sidecars import SourceWarning
from tests.support import tiny


def assert_same(state: State, expected: State, atol: float = 0.0, rtol: float = 0.0) -> None:
    assert state.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(
            state[name].float(), tensor, atol=atol, rtol=rtol, msg=lambda m, n=name: f"{n}: {m}"
        )


@pytest.fixture(scope="module")
def inputs() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    mel = torch.randn(1, 80, 3000, generator=generator)
    return mel, torch.randint(0, 2000, (1, 7), generator=generator)


@pytest.fixture(scope="module")
def hf_logits(hf_model: Any, inputs: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    mel, tokens = inputs
    with torch.no_grad():
        return hf_model(input_features=mel, decoder_input_ids=tokens).logits


def test_hugging_face_weights_run_the_same_in_openais_model(
    reference: Checkpoint,
    inputs: tuple[torch.Tensor, torch.Tensor],
    hf_logits: torch.Tensor,
) -> None:
    from whisper.model import ModelDimensions, Whisper

    model = Whisper(ModelDimensions(**vars(reference.dims)))
    model.load_state_dict(reference.state)
    with torch.no_grad():
        logits = model(*inputs)
    assert hf_logits.std() > 0.5
    torch.testing.assert_close(logits, hf_logits, atol=1e-4, rtol=1e-4)


def test_the_mlx_fixture_runs_the_same_in_mlx_whispers_model(
    reference: Checkpoint,
    inputs: tuple[torch.Tensor, torch.Tensor],
    hf_logits: torch.Tensor,
) -> None:
    import mlx.core as mx
    import numpy as np

    model = tiny.tiny_mlx_model(reference.dims, reference.state)
    mel, tokens = (mx.array(value.numpy()) for value in inputs)
    logits = torch.from_numpy(np.array(model(mel.transpose(0, 2, 1), tokens)))
    torch.testing.assert_close(logits, hf_logits, atol=1e-3, rtol=1e-3)


def test_hugging_face_facts(reference: Checkpoint, hf_folder: Path) -> None:
    assert reference.dims == tiny.tiny_dims()
    assert reference.alignment_heads == tiny.ALIGNMENT_HEADS
    assert reference.is_multilingual is True
    assert (reference.format, reference.source) == ("Hugging Face", str(hf_folder))


def test_sharded_safetensors(tmp_path: Path, hf_model: Any, reference: Checkpoint) -> None:
    folder = tiny.tiny_hf_folder(tmp_path / "sharded", hf_model, max_shard_size="300KB")
    assert len(list(folder.glob("model-*.safetensors"))) > 2
    assert_same(read_checkpoint(folder).state, reference.state)


@pytest.mark.parametrize("shards", [0, 3])
def test_pytorch_bin(shards: int, hf_copy: Path, reference: Checkpoint) -> None:
    assert_same(read_checkpoint(tiny.as_pytorch(hf_copy, shards)).state, reference.state)


@pytest.mark.parametrize("prefix", [True, False])
@pytest.mark.parametrize("output", [True, False])
def test_prefix_and_tied_output_may_be_there_or_not(
    prefix: bool, output: bool, hf_copy: Path, reference: Checkpoint
) -> None:
    state = {
        name.removeprefix("model."): tensor
        for name, tensor in load_file(hf_copy / "model.safetensors").items()
        if name != "proj_out.weight"
    }
    embedding = state["decoder.embed_tokens.weight"]
    state = {("model." if prefix else "") + name: tensor for name, tensor in state.items()}
    if output:
        state["proj_out.weight"] = embedding.clone()
    save_file(state, hf_copy / "model.safetensors")
    assert_same(read_checkpoint(hf_copy).state, reference.state)


def test_openai_names_in_a_safetensors_folder(hf_copy: Path, reference: Checkpoint) -> None:
    state = {name: tensor.contiguous() for name, tensor in reference.state.items()}
    save_file(state, hf_copy / "model.safetensors")
    assert_same(read_checkpoint(hf_copy).state, reference.state)


def test_openai_pt(openai_pt: Path, hf_folder: Path, reference: Checkpoint) -> None:
    checkpoint = read_checkpoint(openai_pt, tokenizer=str(hf_folder))
    assert_same(checkpoint.state, reference.state)
    assert checkpoint.dims == reference.dims
    assert checkpoint.vocabulary == reference.vocabulary
    assert checkpoint.alignment_heads is None
    assert checkpoint.format == "OpenAI"


@pytest.mark.parametrize("file", ["weights.safetensors", "weights.npz", "model.safetensors"])
def test_mlx_community(file: str, tmp_path: Path, hf_folder: Path, reference: Checkpoint) -> None:
    folder = tiny.tiny_mlx_folder(tmp_path / "m", reference.dims, reference.state, file=file)
    checkpoint = read_checkpoint(folder, tokenizer=str(hf_folder))
    # mlx-whisper stores no positions; those computed differ from transformers' by rounding.
    assert_same(checkpoint.state, reference.state, atol=3e-4)
    name = "encoder.positional_embedding"
    assert_same({**checkpoint.state, name: reference.state[name]}, reference.state)
    assert checkpoint.alignment_heads == tiny.ALIGNMENT_HEADS
    assert checkpoint.format == "mlx-community"


def test_mlx_names_beside_a_hugging_face_config(
    mlx_folder: Path, hf_copy: Path, reference: Checkpoint
) -> None:
    shutil.copy(mlx_folder / "weights.safetensors", hf_copy / "model.safetensors")
    checkpoint = read_checkpoint(hf_copy)
    assert_same(checkpoint.state, reference.state, atol=3e-4)


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("file", ["weights.safetensors", "weights.npz"])
def test_quantized_mlx_community(
    bits: int, file: str, tmp_path: Path, hf_folder: Path, reference: Checkpoint
) -> None:
    import mlx.core as mx

    settings = {"group_size": 32, "bits": bits}
    folder = tiny.tiny_mlx_folder(
        tmp_path / "q", reference.dims, reference.state, file=file, quantization=settings
    )
    state = read_checkpoint(folder, tokenizer=str(hf_folder)).state
    name = "decoder.blocks.1.mlp.2.weight"
    packed = mx.quantize(mx.array(reference.state[name].numpy()), **settings)
    expected = mx.dequantize(*packed, **settings)
    torch.testing.assert_close(state[name], torch.tensor(expected.tolist()), atol=1e-6, rtol=0)
    # A step of the widest group of 32, which for weights around 0.1 spans less than 1.
    assert_same(state, reference.state, atol=1 / (2**bits - 1))


@pytest.mark.parametrize(
    ("quantization", "atol", "rtol"),
    [
        ("float32", 0, 0),
        ("float16", 1e-7, 2**-11),
        ("bfloat16", 1e-7, 2**-8),
        ("int8", 0.5 / 127, 0),
        ("int8_float16", 0.5 / 127, 2**-11),
        ("int16", 0.5 / 1024, 0),
    ],
)
def test_ctranslate2(
    quantization: str,
    atol: float,
    rtol: float,
    ctranslate2_folders: dict[str, Path],
    reference: Checkpoint,
) -> None:
    checkpoint = read_checkpoint(ctranslate2_folders[quantization])
    assert_same(checkpoint.state, reference.state, atol, rtol)
    assert checkpoint.dims == reference.dims
    assert checkpoint.vocabulary == reference.vocabulary
    assert checkpoint.alignment_heads == tiny.ALIGNMENT_HEADS
    assert checkpoint.format == "CTranslate2"


def test_ctranslate2_aliases_of_equal_tensors(tmp_path: Path) -> None:
    """Freshly initialized norms and biases are equal, so the converter stores one of them."""
    from ctranslate2.converters import TransformersConverter

    model = tiny.tiny_hf_model()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name or name.endswith("bias"):
                parameter.fill_(float(name.endswith("weight")))
    hf = tiny.tiny_hf_folder(tmp_path / "hf", model)
    TransformersConverter(str(hf), copy_files=["tokenizer.json"]).convert(
        str(tmp_path / "ct2"), quantization="int8"
    )
    assert_same(read_checkpoint(tmp_path / "ct2").state, read_checkpoint(hf).state, atol=0.5 / 127)


def test_alignment_heads_of_another_model_warn_and_are_left_out(hf_copy: Path) -> None:
    heads = [[1, 0], [10, 12]]
    tiny.edit_json(hf_copy / "generation_config.json", alignment_heads=heads)
    with pytest.warns(SourceWarning, match="decoder of 3 layers does not have"):
        assert read_checkpoint(hf_copy).alignment_heads is None


@pytest.mark.parametrize("heads", [None, []])
def test_no_alignment_heads(heads: Any, hf_copy: Path) -> None:
    tiny.edit_json(hf_copy / "generation_config.json", alignment_heads=heads)
    assert read_checkpoint(hf_copy).alignment_heads is None


@pytest.mark.parametrize("heads", ["ab", [1, 2], [[1]], [[1, 2, 3]]])
def test_alignment_heads_that_are_no_pairs(heads: Any, hf_copy: Path) -> None:
    tiny.edit_json(hf_copy / "generation_config.json", alignment_heads=heads)
    with pytest.raises(ValueError, match=r"generation_config\.json: alignment_heads is not"):
        read_checkpoint(hf_copy)


@pytest.mark.parametrize(
    ("card", "licence"),
    [
        ("---\nlanguage: en\nlicense: apache-2.0\n---\n# x", "apache-2.0"),
        ("---\nlanguage: en\n---\nlicense: mit", None),
        ("# no front matter\nlicense: mit", None),
        ("---\r\nlicense: 'cc-by-4.0'\r\n---\r\n", "cc-by-4.0"),
        ("---\nlicense: [mit, other]\n---\n", None),
        ("---\nlicense: {mit\n---\n", None),
        ("---\n- mit\n---\n", None),
    ],
)
def test_the_licence_is_the_source_cards(card: str, licence: str | None, hf_copy: Path) -> None:
    (hf_copy / "README.md").write_text(card)
    assert read_checkpoint(hf_copy).licence == licence


def test_without_generation_config_multilinguality_follows_openais_rule(hf_copy: Path) -> None:
    (hf_copy / "generation_config.json").unlink()
    checkpoint = read_checkpoint(hf_copy)
    assert checkpoint.is_multilingual is None
    assert checkpoint.multilingual is False  # 2,000 tokens are fewer than 51,865
