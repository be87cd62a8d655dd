"""The MLX export: its files, and that it gives the logits of the source."""

from __future__ import annotations

import base64
import os
import stat
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard
from safetensors.torch import load_file

from baldwhisper_convert.checkpoint.checkpoint import Checkpoint
from baldwhisper_convert.export.mlx import export_mlx, mlx_tensors
from baldwhisper_convert.readers.read import read_checkpoint
from baldwhisper_mlx import load_model
from baldwhisper_mlx.config import ModelConfig, default_alignment_heads
from tests.support import tiny, tiny_vocabulary

FILES = ["README.md", "config.json", "model.safetensors", "vocabulary.tiktoken"]
DTYPES = ("float16", "bfloat16", "float32")


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory, reference: Checkpoint) -> Path:
    return export_mlx(reference, tmp_path_factory.mktemp("out") / "model", dtype="float32")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def runtime_logits(folder: Path, mel: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    model = load_model(folder).model
    cache = model.make_cache()
    model.encode(mx.array(mel.numpy()).transpose(0, 2, 1), [mel.shape[2]], cache)
    logits = model.logits(model.decoder(mx.array(tokens.numpy()), cache))
    return torch.from_numpy(np.array(logits))


def test_the_exported_model_gives_the_sources_logits(exported: Path, hf_model: Any) -> None:
    generator = torch.Generator().manual_seed(5)
    mel = torch.randn(2, 80, 3000, generator=generator)
    tokens = torch.randint(0, 2000, (2, 9), generator=generator)
    with torch.no_grad():
        expected = hf_model(input_features=mel, decoder_input_ids=tokens).logits
    logits = runtime_logits(exported, mel[:1], tokens[:1])
    torch.testing.assert_close(logits, expected[:1], atol=1e-3, rtol=1e-3)


def test_the_folder_is_complete(exported: Path, reference: Checkpoint) -> None:
    assert names(exported) == FILES
    config = ModelConfig.from_file(exported / "config.json")
    assert config == reference.model_config(dtype="float32")
    assert config.alignment_heads == tiny.ALIGNMENT_HEADS
    assert config.is_multilingual
    assert config.special_tokens == tiny_vocabulary.tiny_vocabulary().special_tokens
    lines = (exported / "vocabulary.tiktoken").read_text().splitlines()
    ranks = {base64.b64decode(token): int(rank) for token, rank in map(str.split, lines)}
    assert ranks == tiny_vocabulary.tiny_vocabulary().ranks


def test_others_may_read_the_files(exported: Path) -> None:
    mask = os.umask(0)
    os.umask(mask)
    for path in exported.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~mask
    assert stat.S_IMODE(exported.stat().st_mode) == 0o777 & ~mask


def test_the_card_describes_the_model(exported: Path, reference: Checkpoint) -> None:
    card = (exported / "README.md").read_text()
    parameters = sum(tensor.numel() for tensor in reference.state.values())
    for words in (
        "# model",
        f"| parameters | {parameters:,} |",
        "| weights stored as | float32 |",
        "2,014 tokens, 99 language tokens",
        "Exported from `whisper-tiny-random` (Hugging Face format)",
        "2, from the source",
        "The weights' licence is the source's; its files do not state one",
    ):
        assert words in card
    assert "license:" not in card
    assert "base_model:" not in card
    assert str(Path(reference.source).parent) not in card


def test_a_stated_licence_is_repeated(tmp_path: Path, reference: Checkpoint) -> None:
    hub = replace(reference, licence="apache-2.0", source="some/model@abc", alignment_heads=None)
    path = export_mlx(hub, tmp_path / "m") / "README.md"
    metadata, card = ModelCard.load(path).data, path.read_text()
    assert metadata.license == "apache-2.0"
    assert metadata.base_model == "some/model"
    assert metadata.tags == ["whisper", "baldwhisper", "mlx"]
    assert "states: apache-2.0." in card
    assert "Exported from `some/model@abc`" in card
    assert "the default: all of the last half of the decoder layers" in card


def test_the_base_model_is_that_of_the_first_source(tmp_path: Path, reference: Checkpoint) -> None:
    """A stage is made of a folder, which was made of a model of the Hub."""
    hub = replace(reference, source="some/model@abc")
    stage = read_checkpoint(export_mlx(hub, tmp_path / "stage", dtype="float32"))
    card = ModelCard.load(export_mlx(stage, tmp_path / "m") / "README.md").data
    assert card.base_model == "some/model"


def test_languages_are_stored_and_kept(tmp_path: Path, reference: Checkpoint) -> None:
    folder = export_mlx(reference, tmp_path / "m", dtype="float32", languages=["English", "fr"])
    assert ModelConfig.from_file(folder / "config.json").languages == ("en", "fr")
    card = (folder / "README.md").read_text()
    assert ModelCard(card).data.language == ["en", "fr"]
    assert "| trained for | en, fr |" in card
    read = read_checkpoint(folder)
    assert read.languages == ("en", "fr")
    # Training in another language is possible; the runtime refuses it.
    assert read.tokenizer().to_language("de") == "de"
    again = export_mlx(read, tmp_path / "again", dtype="float32")
    assert ModelConfig.from_file(again / "config.json").languages == ("en", "fr")
    with pytest.raises(ValueError, match="only en"):
        load_model(again).tokenizer.to_language("de")
    with pytest.raises(ValueError, match="unknown language"):
        export_mlx(reference, tmp_path / "x", languages=["Klingon"])


@pytest.mark.parametrize("dtype", DTYPES)
def test_dtype(dtype: Any, tmp_path: Path, reference: Checkpoint) -> None:
    folder = export_mlx(reference, tmp_path / "m", dtype=dtype)
    tensors = load_file(folder / "model.safetensors")
    assert {tensor.dtype for tensor in tensors.values()} == {getattr(torch, dtype)}
    for name, tensor in mlx_tensors(reference.state, "float32", "x").items():
        assert tensors[name].equal(tensor.to(getattr(torch, dtype)))


def test_layouts(reference: Checkpoint) -> None:
    tensors = mlx_tensors(reference.state, "float32", "x")
    assert tensors["encoder.conv1.weight"].shape == (64, 3, 80)
    assert tensors["encoder.conv2.weight"].shape == (64, 3, 64)
    assert tensors["decoder.blocks.2.cross_attn.kv.weight"].shape == (128, 64)
    assert all(tensor.is_contiguous() for tensor in tensors.values())


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"separate": True},
        {"mean": True},
        {"dense_rows": 7},
        {"separate": True, "mean": True, "dense_rows": 7},
    ],
    ids=str,
)
def test_a_factorized_embedding_runs_as_its_dense_product(
    options: dict[str, Any], tmp_path: Path
) -> None:
    dims = tiny.tiny_dims(n_text_layer=1, n_audio_layer=1)
    state = tiny.factorized_state(dims, 8, **options)
    checkpoint = tiny.tiny_checkpoint(dims, state=state, alignment_heads=None)
    folder = export_mlx(checkpoint, tmp_path / "m", dtype="float32")
    config = ModelConfig.from_file(folder / "config.json")
    assert config.embedding_rank == 8
    assert config.embedding_projections == ("separate" if "separate" in options else "shared")
    assert config.embedding_mean == ("mean" in options)
    assert config.embedding_dense_rows == options.get("dense_rows", 0)

    e = {k.rpartition(".")[2]: v for k, v in state.items() if "token_embedding" in k}
    ends = []
    for projection in (e["input_projection"], e.get("output_projection", e["input_projection"])):
        dense = e["factors"] @ projection + e.get("mean", torch.zeros(64))
        if "dense_rows" in e:
            dense[e["dense_ids"]] = e["dense_rows"]
        ends.append(dense)
    embedding = load_model(folder).model.decoder.token_embedding
    tokens = torch.arange(dims.n_vocab)
    found = torch.from_numpy(np.array(embedding(mx.array(tokens.numpy())[None])))[0]
    torch.testing.assert_close(found, ends[0], atol=1e-4, rtol=1e-4)
    hidden = torch.randn(3, 64, generator=torch.Generator().manual_seed(2))
    logits = torch.from_numpy(np.array(embedding.as_linear(mx.array(hidden.numpy()))))
    torch.testing.assert_close(logits, hidden @ ends[1].T, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize(
    ("mels", "n_vocab"), [(80, 51864), (80, 51865), (128, 51866)], ids=["en", "v2", "v3"]
)
def test_real_vocabularies_and_mel_bins(mels: int, n_vocab: int, tmp_path: Path) -> None:
    """A narrow model of each Whisper generation, from OpenAI's format with no tokenizer."""
    dims = tiny.tiny_dims(
        n_mels=mels, n_vocab=n_vocab, n_audio_state=32, n_text_state=32, n_text_layer=2
    )
    source = tiny.tiny_openai_pt(tmp_path / "model.pt", dims)
    checkpoint = read_checkpoint(source)
    assert checkpoint.alignment_heads is None
    folder = export_mlx(checkpoint, tmp_path / "out")
    config = ModelConfig.from_file(folder / "config.json")
    assert (config.n_mels, config.n_vocab) == (mels, n_vocab)
    assert config.is_multilingual == (n_vocab > 51864)
    assert config.timestamp_begin == n_vocab - 1501
    assert config.alignment_heads == default_alignment_heads(2, dims.n_text_head)


def test_audio_context_is_stored(tmp_path: Path, reference: Checkpoint) -> None:
    folder = export_mlx(reference, tmp_path / "m", audio_context="trimmed")
    assert ModelConfig.from_file(folder / "config.json").audio_context == "trimmed"


class TestChecks:
    def test_a_value_that_overflows_float16(self, tmp_path: Path, reference: Checkpoint) -> None:
        state = dict(reference.state)
        name = "decoder.blocks.0.mlp.0.bias"
        state[name] = torch.full_like(state[name], 70000.0)
        big = replace(reference, state=state)
        with pytest.raises(ValueError, match=rf"{name} has values up to 70000, which overflow"):
            export_mlx(big, tmp_path / "m", dtype="float16")
        assert names(tmp_path) == []
        export_mlx(big, tmp_path / "m", dtype="bfloat16")

    def test_heads_that_do_not_divide_the_width(self, tmp_path: Path) -> None:
        dims = tiny.tiny_dims(n_text_head=5)
        odd = tiny.tiny_checkpoint(dims, state=tiny.tiny_state(), alignment_heads=None)
        with pytest.raises(ValueError, match=r"tiny: config: bad value for n_text_head: 5"):
            export_mlx(odd, tmp_path / "m")

    def test_an_unknown_dtype(self, tmp_path: Path, reference: Checkpoint) -> None:
        with pytest.raises(ValueError, match="dtype"):
            export_mlx(reference, tmp_path / "m", dtype="int8")  # type: ignore[arg-type]

    def test_logits_that_are_not_finite(self, tmp_path: Path, reference: Checkpoint) -> None:
        state = dict(reference.state)
        state["decoder.ln.bias"] = torch.full((64,), 3e38)
        state["decoder.token_embedding.weight"] = 100 * state["decoder.token_embedding.weight"]
        with pytest.raises(ValueError, match="logits are not finite"):
            export_mlx(replace(reference, state=state), tmp_path / "m", dtype="float32")
        assert names(tmp_path) == []

    def test_an_alignment_head_that_does_not_exist(self, reference: Checkpoint) -> None:
        with pytest.raises(ValueError, match=r"alignment head \(3, 0\) does not exist"):
            replace(reference, alignment_heads=((3, 0),))

    def test_a_vocabulary_of_another_size(self, reference: Checkpoint) -> None:
        with pytest.raises(ValueError, match="the vocabulary has 2015 tokens"):
            replace(reference, vocabulary=tiny_vocabulary.tiny_vocabulary(100))
