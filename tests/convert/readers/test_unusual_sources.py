"""Sources that training programs left behind: other names, more rows, other lengths."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from baldwhisper_convert.checkpoint.checkpoint import Checkpoint
from baldwhisper_convert.checkpoint.state import State
from baldwhisper_convert.readers.read import read_checkpoint
from baldwhisper_convert.readers.sidecars import SourceWarning
from tests.support import tiny


def assert_same(state: State, expected: State) -> None:
    assert state.keys() == expected.keys()
    assert [name for name, tensor in expected.items() if not torch.equal(state[name], tensor)] == []


@pytest.mark.parametrize("prefix", ["_orig_mod.", "module.", "model.", "_orig_mod.module.model."])
def test_prefixes_of_training_wrappers(prefix: str, hf_copy: Path, reference: Checkpoint) -> None:
    state = load_file(hf_copy / "model.safetensors")
    wrapped = {prefix + name: tensor for name, tensor in state.items()}
    inner = {name.replace(".layers.0.", ".layers.0._orig_mod."): t for name, t in wrapped.items()}
    save_file(inner, hf_copy / "model.safetensors")
    assert_same(read_checkpoint(hf_copy).state, reference.state)


def test_an_openai_file_of_a_wrapped_model(
    tmp_path: Path, openai_pt: Path, hf_folder: Path, reference: Checkpoint
) -> None:
    raw = torch.load(openai_pt)
    raw["model_state_dict"] = {f"module.{k}": v for k, v in raw["model_state_dict"].items()}
    torch.save(raw, tmp_path / "wrapped.pt")
    checkpoint = read_checkpoint(tmp_path / "wrapped.pt", tokenizer=str(hf_folder))
    assert_same(checkpoint.state, reference.state)


def resized(folder: Path, rows: int) -> torch.Tensor:
    """Gives the token embedding more or fewer rows, as resize_token_embeddings does."""
    state = load_file(folder / "model.safetensors")
    old = state["model.decoder.embed_tokens.weight"]
    more = torch.randn(max(0, rows - len(old)), old.shape[1])
    new = torch.cat([old[:rows], more])
    state["model.decoder.embed_tokens.weight"] = new
    save_file(state, folder / "model.safetensors")
    tiny.edit_json(folder / "config.json", vocab_size=rows)
    return new


def test_rows_of_padding_are_left_out(hf_copy: Path, reference: Checkpoint) -> None:
    resized(hf_copy, 2048)
    with pytest.warns(SourceWarning, match="2048 rows for 2014 tokens; the last 34 are padding"):
        checkpoint = read_checkpoint(hf_copy)
    assert checkpoint.dims == reference.dims
    assert checkpoint.vocabulary == reference.vocabulary
    assert_same(checkpoint.state, reference.state)


@pytest.mark.parametrize(
    ("rows", "match"),
    [
        (2015, "has 2014 tokens, .* 2015 rows"),
        (2008 + 256, "has 2014 tokens, .* 2264 rows"),
        (513, "has 513 rows, so 1501 of the 1501 timestamps are missing"),
        (2013, "1 of the 1501 timestamps are missing"),
        (512, "has 2014 tokens, .* 512 rows"),
    ],
)
def test_other_sizes_are_refused(rows: int, match: str, hf_copy: Path) -> None:
    resized(hf_copy, rows)
    with pytest.raises(ValueError, match=match):
        read_checkpoint(hf_copy)


@pytest.mark.parametrize("padding", [0, 33])
def test_a_language_added_after_the_timestamps(
    padding: int, hf_copy: Path, reference: Checkpoint
) -> None:
    """Its row moves to its new id, so that the model does the same under other numbers."""
    rows = resized(hf_copy, 2015 + padding)
    raw = json.loads((hf_copy / "tokenizer.json").read_text())
    raw["added_tokens"].append({"id": 2014, "content": "<|bam|>", "special": True})
    (hf_copy / "tokenizer.json").write_text(json.dumps(raw))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore" if padding else "error", SourceWarning)
        checkpoint = read_checkpoint(hf_copy)
    assert checkpoint.dims.n_vocab == 2015
    special, old = checkpoint.vocabulary.special_tokens, reference.vocabulary
    embedding = checkpoint.state["decoder.token_embedding.weight"]
    assert torch.equal(embedding[special["<|bam|>"]], rows[2014])
    for name, i in old.special_tokens.items():
        assert torch.equal(embedding[special[name]], rows[i]), name
    begin = checkpoint.vocabulary.timestamp_begin
    assert torch.equal(embedding[begin:], rows[old.timestamp_begin : 2014])
    assert "bam" in checkpoint.tokenizer().languages


def test_windows_of_another_length_are_refused(tmp_path: Path) -> None:
    folder = tiny.tiny_hf_folder(
        tmp_path / "m", tiny.tiny_hf_model(tiny.tiny_dims(n_audio_ctx=500))
    )
    with pytest.raises(ValueError, match=r"500 encoder positions .*max_source_positions.*10 s"):
        read_checkpoint(folder)


def test_a_model_that_transformers_quantized(hf_copy: Path) -> None:
    settings = {"quant_method": "bitsandbytes", "load_in_8bit": True}
    tiny.edit_json(hf_copy / "config.json", quantization_config=settings)
    with pytest.raises(ValueError, match=r"config\.json: quantized \(bitsandbytes\)"):
        read_checkpoint(hf_copy)
