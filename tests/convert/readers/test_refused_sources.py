"""Sources that are damaged or not a Whisper: the error names the file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from baldwhisper_convert.checkpoint.checkpoint import Checkpoint
from baldwhisper_convert.readers.formats import read_weights
from baldwhisper_convert.readers.read import read_checkpoint
from tests.support import tiny


def fails(path: Path, match: str, kind: type[Exception] = ValueError) -> None:
    with pytest.raises(kind, match=match):
        read_weights(path)


def test_another_model_type(hf_copy: Path) -> None:
    tiny.edit_json(hf_copy / "config.json", model_type="wav2vec2")
    fails(hf_copy, r"config\.json: model_type is 'wav2vec2', expected 'whisper'")


@pytest.mark.parametrize("key", ["d_model", "num_mel_bins", "decoder_attention_heads"])
def test_incomplete_config(key: str, hf_copy: Path) -> None:
    tiny.edit_json(hf_copy / "config.json", **{key: None})
    fails(hf_copy, rf"config\.json: missing {key}")


@pytest.mark.parametrize("change", [{"activation_function": "relu"}, {"scale_embedding": True}])
def test_another_architecture(change: dict[str, Any], hf_copy: Path) -> None:
    tiny.edit_json(hf_copy / "config.json", **change)
    fails(hf_copy, "not a Whisper, which has activation_function")


def test_a_config_that_is_not_json(hf_copy: Path) -> None:
    (hf_copy / "config.json").write_text("{")
    fails(hf_copy, r"config\.json: not valid JSON")


def test_config_missing(hf_copy: Path) -> None:
    (hf_copy / "config.json").unlink()
    fails(hf_copy, r"config\.json: missing", FileNotFoundError)


def test_empty_folder(tmp_path: Path) -> None:
    fails(tmp_path, "no weights; expected one of model.safetensors", FileNotFoundError)


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors"])
def test_an_adapter(name: str, tmp_path: Path) -> None:
    (tmp_path / name).touch()
    fails(tmp_path, "a LoRA adapter, not a model; merge it")


def test_unmerged_lora_tensors(hf_copy: Path) -> None:
    state = load_file(hf_copy / "model.safetensors")
    state["model.decoder.layers.0.self_attn.q_proj.lora_A.weight"] = torch.zeros(2, 64)
    save_file(state, hf_copy / "model.safetensors")
    fails(hf_copy, "has LoRA tensors; merge them")


def test_an_untied_output(hf_copy: Path) -> None:
    state = load_file(hf_copy / "model.safetensors")
    state["proj_out.weight"] = state["model.decoder.embed_tokens.weight"] + 1
    save_file(state, hf_copy / "model.safetensors")
    fails(hf_copy, r"proj_out\.weight differs from decoder\.embed_tokens\.weight")


def test_a_name_with_and_without_prefix(hf_copy: Path) -> None:
    state = load_file(hf_copy / "model.safetensors")
    state["decoder.layer_norm.bias"] = torch.zeros(64)
    save_file(state, hf_copy / "model.safetensors")
    fails(hf_copy, r"decoder\.layer_norm\.bias occurs with and without a prefix")


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"model.encoder.conv1.bias": None}, r"missing encoder\.conv1\.bias"),
        ({"model.encoder.conv3.bias": torch.zeros(1)}, r"unexpected encoder\.conv3\.bias"),
        (
            {"model.encoder.conv1.bias": torch.zeros(3)},
            r"encoder\.conv1\.bias \(expected \[64\], found \[3\]\)",
        ),
        (
            {"model.decoder.layers.3.fc1.bias": torch.zeros(256)},
            r"unexpected decoder\.blocks\.3\.mlp\.0\.bias",
        ),
        ({"model.encoder.conv1.bias": torch.full((64,), torch.nan)}, "contains NaN"),
        ({"model.encoder.conv1.bias": torch.zeros(64).to(torch.float8_e4m3fn)}, "float8_e4m3fn"),
        ({"model.encoder.layers.0.fc1.SCB": torch.zeros(256)}, "quantized .bitsandbytes."),
    ],
    ids=["missing", "unexpected", "shape", "one layer more", "nan", "fp8", "bitsandbytes"],
)
def test_wrong_tensors(change: dict[str, torch.Tensor | None], match: str, hf_copy: Path) -> None:
    state = load_file(hf_copy / "model.safetensors") | change
    save_file({k: v for k, v in state.items() if v is not None}, hf_copy / "model.safetensors")
    with pytest.raises(ValueError, match=match):
        read_checkpoint(hf_copy)


@pytest.mark.parametrize("cut", [0, 4, 100, 5000, -1])
def test_truncated_safetensors(cut: int, hf_copy: Path) -> None:
    file = hf_copy / "model.safetensors"
    file.write_bytes(file.read_bytes()[:cut])
    fails(hf_copy, r"model\.safetensors: damaged safetensors file")


@pytest.mark.parametrize("cut", [0, 4, 100, 5000, -1])
def test_truncated_pytorch_bin(cut: int, hf_copy: Path) -> None:
    file = tiny.as_pytorch(hf_copy) / "pytorch_model.bin"
    file.write_bytes(file.read_bytes()[:cut])
    fails(hf_copy, r"pytorch_model\.bin: cannot be read as a PyTorch file")


@pytest.mark.parametrize("cut", [0, 4, 5000, -1])
def test_truncated_npz(cut: int, tmp_path: Path, reference: Checkpoint) -> None:
    folder = tiny.tiny_mlx_folder(
        tmp_path / "m", reference.dims, reference.state, file="weights.npz"
    )
    file = folder / "weights.npz"
    file.write_bytes(file.read_bytes()[:cut])
    fails(folder, r"weights\.npz: damaged npz file")


def test_a_pickle_that_would_run_code(tmp_path: Path) -> None:
    class Payload:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (tmp_path / "owned",)

    file = tmp_path / "model.pt"
    torch.save({"dims": Payload(), "model_state_dict": {}}, file)
    fails(file, r"model\.pt: cannot be read as a PyTorch file")
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize(
    ("raw", "match"),
    [
        ([1], "not OpenAI's format"),
        ({"dims": {}}, "not OpenAI's format"),
        ({"dims": {}, "model_state_dict": {}}, "missing n_audio_ctx, .*n_vocab"),
        ({"dims": {}, "model_state_dict": [1]}, "expected a dictionary of tensors"),
        ({"dims": {}, "model_state_dict": {"a": 1}}, "expected a dictionary of tensors"),
        ({"dims": {}, "model_state_dict": {1: torch.zeros(1)}}, "expected a dictionary"),
    ],
)
def test_a_pt_file_of_something_else(raw: Any, match: str, tmp_path: Path) -> None:
    torch.save(raw, tmp_path / "model.pt")
    fails(tmp_path / "model.pt", rf"model\.pt: .*{match}")


def test_a_bin_without_a_state_dict(hf_copy: Path) -> None:
    (hf_copy / "model.safetensors").unlink()
    torch.save({"model": {"a": torch.zeros(1)}}, hf_copy / "pytorch_model.bin")
    fails(hf_copy, "expected a dictionary of tensors")


def test_a_single_file_that_needs_its_folder(hf_folder: Path) -> None:
    fails(hf_folder / "model.safetensors", "give the folder that it is in")


def test_a_missing_shard(hf_copy: Path) -> None:
    (tiny.as_pytorch(hf_copy, 3) / "pytorch_model-00002-of-00003.bin").unlink()
    fails(hf_copy, r"00002-of-00003\.bin: missing, but", FileNotFoundError)


@pytest.mark.parametrize(
    "index",
    [
        "[]",
        "{}",
        '{"weight_map": {}}',
        '{"weight_map": {"a": "../b"}}',
        '{"weight_map": {"a": ["b"]}}',
    ],
)
def test_a_bad_index(index: str, hf_copy: Path) -> None:
    tiny.as_pytorch(hf_copy, 3)
    (hf_copy / "pytorch_model.bin.index.json").write_text(index)
    fails(hf_copy, r"index\.json: no `weight_map` of files in this folder")


def test_a_tensor_in_two_shards(hf_copy: Path) -> None:
    tiny.as_pytorch(hf_copy, 2)
    twin = torch.load(hf_copy / "pytorch_model-00001-of-00002.bin")
    torch.save(twin, hf_copy / "pytorch_model-00002-of-00002.bin")
    fails(hf_copy, "is also in another shard")


def test_unknown_keys_in_an_mlx_config_are_not_looked_at(
    tmp_path: Path, reference: Checkpoint
) -> None:
    folder = tiny.tiny_mlx_folder(tmp_path / "m", reference.dims, reference.state)
    tiny.edit_json(folder / "config.json", n_more=1, quantization=[1])
    assert read_weights(folder).dims == reference.dims
    tiny.edit_json(folder / "config.json", n_mels=None)
    fails(folder, r"config\.json: missing .*num_mel_bins")


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        (None, "`quantization` of config.json is missing or no object"),
        ([1], "missing or no object"),
        ({"group_size": 32, "bits": 8}, "cannot be dequantized|wrong shape"),
        ({"group_size": 32}, "cannot be dequantized"),
        ({"group_size": 32, "bits": 4, "mode": "mxfp4"}, "not quantized in MLX's affine mode"),
        ({"group_size": 32, "bits": 4, "decoder.token_embedding": False}, "affine mode"),
    ],
    ids=["none", "list", "wrong bits", "no bits", "mode", "layer"],
)
def test_quantization_settings_that_do_not_fit(
    settings: Any, match: str, tmp_path: Path, hf_folder: Path, reference: Checkpoint
) -> None:
    folder = tiny.tiny_mlx_folder(
        tmp_path / "q",
        reference.dims,
        reference.state,
        quantization={"group_size": 32, "bits": 4},
    )
    tiny.edit_json(folder / "config.json", quantization=settings)
    with pytest.raises(ValueError, match=match):
        read_checkpoint(folder, tokenizer=str(hf_folder))
