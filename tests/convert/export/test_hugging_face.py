"""The Hugging Face export: transformers and CTranslate2 read the same model and tokenizer."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file

from baldwhisper_convert.checkpoint.checkpoint import Checkpoint
from baldwhisper_convert.cli.main import main
from baldwhisper_convert.export import hugging_face as module
from baldwhisper_convert.export.hf_files import generation_config
from baldwhisper_convert.export.hugging_face import ExportWarning, dense_embedding, export_hf
from baldwhisper_convert.export.mlx import export_mlx
from baldwhisper_convert.readers.read import read_checkpoint
from baldwhisper_convert.readers.tokenizer import find_vocabulary, read_tokenizer
from tests.support import tiny
from tests.support.tiny import tiny_form
from tests.support.tiny_vocabulary import tiny_vocabulary

FILES = [
    "README.md",
    "added_tokens.json",
    "config.json",
    "generation_config.json",
    "merges.txt",
    "model.safetensors",
    "preprocessor_config.json",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
]


def quietly(checkpoint: Checkpoint, path: Path, **options: Any) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExportWarning)
        return export_hf(checkpoint, path, **options)


@pytest.fixture(scope="module", params=tiny.FORMS)
def pair(request: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Checkpoint, Path]:
    """A checkpoint and its float32 folder."""
    checkpoint = tiny_form(request.param)
    folder = tmp_path_factory.mktemp(request.param) / "hf"
    return checkpoint, quietly(checkpoint, folder, dtype="float32")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_hf(tiny_form("dense", licence="mit"), tmp_path_factory.mktemp("hf") / "model")


def hf_model(folder: Path) -> Any:
    from transformers import WhisperForConditionalGeneration

    return WhisperForConditionalGeneration.from_pretrained(folder, local_files_only=True).eval()


def test_the_folder_is_complete(folder: Path) -> None:
    assert sorted(path.name for path in folder.iterdir()) == FILES
    state = load_file(folder / "model.safetensors")
    assert {tensor.dtype for tensor in state.values()} == {torch.float16}
    assert "proj_out.weight" not in state
    assert json.loads((folder / "config.json").read_text())["tie_word_embeddings"] is True


def test_what_is_written_is_read_back(pair: tuple[Checkpoint, Path]) -> None:
    checkpoint, hf = pair
    if checkpoint.embedding.projections == "separate":
        with pytest.raises(ValueError, match="only models that tie the two"):
            read_checkpoint(hf)
        return
    read = read_checkpoint(hf)
    for field in ("dims", "vocabulary", "alignment_heads", "is_multilingual"):
        assert getattr(read, field) == getattr(checkpoint, field)
    for name, tensor in read.state.items():
        if not name.startswith("decoder.token_embedding"):
            assert tensor.equal(checkpoint.state[name])
    dense, _ = dense_embedding(checkpoint.state)
    assert read.state["decoder.token_embedding.weight"].equal(dense)


def test_the_slow_tokenizer_gives_the_same(folder: Path, tmp_path: Path) -> None:
    for name in ("vocab.json", "merges.txt", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    expected = tiny_vocabulary()
    assert read_tokenizer(tmp_path, expected.n_vocab) == expected
    (tmp_path / "tokenizer_config.json").unlink()
    (tmp_path / "added_tokens.json").write_bytes((folder / "added_tokens.json").read_bytes())
    assert read_tokenizer(tmp_path, expected.n_vocab) == expected


def test_only_separate_projections_are_untied() -> None:
    first, second = dense_embedding(tiny_form("tied").state)
    assert first is second
    first, second = dense_embedding(tiny_form("untied").state)
    ids = tiny_form("untied").state["decoder.token_embedding.dense_ids"]
    assert first[ids].equal(second[ids])
    assert not first.equal(second)


@pytest.fixture(scope="module")
def untied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return quietly(tiny_form("untied"), tmp_path_factory.mktemp("untied") / "m")


class TestUntied:
    def test_the_output_has_a_separate_matrix(self, untied: Path) -> None:
        state = load_file(untied / "model.safetensors")
        first, second = dense_embedding(tiny_form("untied").state)
        assert state["model.decoder.embed_tokens.weight"].equal(first.half())
        assert state["proj_out.weight"].equal(second.half())
        assert json.loads((untied / "config.json").read_text())["tie_word_embeddings"] is False

    def test_the_card_mentions_it(self, untied: Path) -> None:
        card = (untied / "README.md").read_text()
        assert "`tie_word_embeddings` is false" in card
        assert "whisper.cpp\ndoes not" in card

    def test_the_export_warns(self, tmp_path: Path) -> None:
        with pytest.warns(ExportWarning, match=r"whisper\.cpp's converter drops it"):
            export_hf(tiny_form("untied"), tmp_path / "m")


def test_the_card(folder: Path) -> None:
    card = (folder / "README.md").read_text()
    for words in (
        "library_name: transformers",
        "license: mit",
        "# model",
        "| weights stored as | float16 |",
        "| token embedding | dense |",
        "pipeline(",
        "ct2-transformers-converter",
        "takes it too",
    ):
        assert words in card


def test_another_audio_context_is_warned_about(tmp_path: Path) -> None:
    with pytest.warns(ExportWarning, match="trained for a trimmed audio context"):
        folder = export_hf(tiny_form("dense", audio_context="trimmed"), tmp_path / "m")
    assert "30 s here; trained for trimmed" in (folder / "README.md").read_text()


class TestGenerationConfig:
    def test_multilingual(self, folder: Path) -> None:
        config = json.loads((folder / "generation_config.json").read_text())
        special = tiny_vocabulary().special_tokens
        assert config["is_multilingual"] is True
        assert config["alignment_heads"] == [list(pair) for pair in tiny.ALIGNMENT_HEADS]
        assert config["lang_to_id"]["<|en|>"] == special["<|en|>"]
        assert len(config["lang_to_id"]) == 99
        assert config["task_to_id"] == {
            "transcribe": special["<|transcribe|>"],
            "translate": special["<|translate|>"],
        }
        assert config["no_timestamps_token_id"] == special["<|notimestamps|>"]
        assert config["forced_decoder_ids"] is None

    def test_of_openais_vocabulary(self) -> None:
        """The lists in `generation_config.json` of openai/whisper-base."""
        dims = tiny.tiny_dims(n_vocab=51865, n_audio_state=4, n_text_state=4)
        vocabulary = find_vocabulary(None, 51865)
        config = generation_config(tiny.tiny_checkpoint(dims, vocabulary=vocabulary))
        assert config["begin_suppress_tokens"] == [220, 50257]
        suppressed = config["suppress_tokens"]
        assert suppressed[:10] == [1, 2, 7, 8, 9, 10, 14, 25, 26, 27]
        assert suppressed[-7:] == [50254, 50258, 50358, 50359, 50360, 50361, 50362]
        assert len(suppressed) == 88
        assert config["lang_to_id"]["<|fr|>"] == 50265
        assert config["no_timestamps_token_id"] == 50363

    def test_english_only(self, tmp_path: Path) -> None:
        folder = export_hf(tiny_form("dense", is_multilingual=False), tmp_path / "m")
        config = json.loads((folder / "generation_config.json").read_text())
        assert config["is_multilingual"] is False
        assert not {"lang_to_id", "task_to_id"} & config.keys()
        features = torch.zeros(1, 80, 3000)
        model = hf_model(folder).float()
        generated = model.generate(features, max_new_tokens=3, force_unique_generate_call=True)
        tokens = generated[0].tolist()
        special = tiny_vocabulary().special_tokens
        assert tokens[:2] == [special["<|startoftranscript|>"], special["<|notimestamps|>"]]


class TestWriting:
    def test_force_replaces_exports_only(self, folder: Path, tmp_path: Path, hf_copy: Path) -> None:
        checkpoint = tiny_form("dense")
        own = export_hf(checkpoint, tmp_path / "m")
        with pytest.raises(FileExistsError, match="--force replaces it"):
            export_hf(checkpoint, own)
        export_hf(checkpoint, own, dtype="float32", force=True)
        export_mlx(checkpoint, own, force=True)
        with pytest.raises(FileExistsError, match="not an exported model"):
            export_hf(checkpoint, hf_copy, force=True)

    def test_a_folder_that_does_not_load_is_not_kept(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def broken(*arguments: Any, **options: Any) -> dict[str, Any]:
            return real(*arguments, **options) | {"decoder_layers": 4}

        real = module.hf_config
        monkeypatch.setattr(module, "hf_config", broken)
        with pytest.raises(ValueError, match="does not load the export correctly: missing_keys"):
            export_hf(tiny_form("dense"), tmp_path / "m")
        assert list(tmp_path.iterdir()) == []

    def test_a_tokenizer_that_differs_is_noticed(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def broken(*arguments: Any) -> dict[str, str]:
            files = real(*arguments)
            raw = json.loads(files["tokenizer.json"])
            raw["model"]["merges"] = raw["model"]["merges"][:10]
            return files | {"tokenizer.json": json.dumps(raw)}

        real = module.tokenizer_files
        monkeypatch.setattr(module, "tokenizer_files", broken)
        with pytest.raises(ValueError, match="the tokenizer encodes text differently"):
            export_hf(tiny_form("dense"), tmp_path / "m")
        assert list(tmp_path.iterdir()) == []

    def test_different_widths(self, tmp_path: Path) -> None:
        dims = tiny.tiny_dims(n_audio_state=32)
        checkpoint = tiny.tiny_checkpoint(dims, state=tiny.tiny_state(dims))
        with pytest.raises(ValueError, match=r"different widths \(32, 64\)"):
            export_hf(checkpoint, tmp_path / "m")
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("dtype", ["int8", "float16"])
    def test_types_that_do_not_fit(self, dtype: Any, tmp_path: Path) -> None:
        checkpoint = tiny_form("dense")
        name = "decoder.blocks.0.mlp.0.bias"
        big = {name: torch.full_like(checkpoint.state[name], 70000.0)}
        match = "dtype 'int8' is none of" if dtype == "int8" else "70000, which overflow float16"
        with pytest.raises(ValueError, match=match):
            export_hf(
                replace(checkpoint, state=checkpoint.state | big), tmp_path / "m", dtype=dtype
            )


def test_the_command(hf_folder: Path, tmp_path: Path) -> None:
    arguments = ["export", str(hf_folder), str(tmp_path / "m"), "--format", "hf"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    assert sorted(path.name for path in (tmp_path / "m").iterdir()) == FILES
    result = CliRunner().invoke(main, [*arguments, "--audio-context", "full"])
    assert result.exit_code == 2
