"""Tokens that are never written: from a checkpoint's own list to what the runtime writes."""

from __future__ import annotations

import dataclasses
import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from baldwhisper_convert.checkpoint.checkpoint import Checkpoint
from baldwhisper_convert.checkpoint.state import EMBEDDING
from baldwhisper_convert.cli.main import main
from baldwhisper_convert.data.prepare import prepare
from baldwhisper_convert.data.prepare_settings import PrepareSettings
from baldwhisper_convert.data.suppressed import SuppressedLabels, SuppressedLabelWarning
from baldwhisper_convert.export.hugging_face import export_hf
from baldwhisper_convert.export.mlx import export_mlx
from baldwhisper_convert.model.greedy import decode_greedy
from baldwhisper_convert.model.prompts import Prompts
from baldwhisper_convert.model.whisper import Whisper
from baldwhisper_convert.readers.read import read_checkpoint
from baldwhisper_mlx import load_model, transcribe
from baldwhisper_mlx.config import ModelConfig
from tests.support.tiny import edit_json, tiny_checkpoint, tiny_dims, tiny_hf_folder, tiny_state
from tests.support.tiny_speech import sound, tiny_speech, tiny_teacher, tiny_utterance
from tests.support.tiny_vocabulary import tiny_vocabulary

BRACKET = tiny_vocabulary().ranks[b"("]
END = tiny_vocabulary().special_tokens["<|endoftext|>"]


def writes_brackets(**fields: Any) -> Checkpoint:
    """A model that writes "a (quick fox", whatever the audio: a token for each position."""
    dims = tiny_dims(n_audio_layer=1, n_text_layer=1)
    state = tiny_state(dims)
    checkpoint = tiny_checkpoint(dims, state=state, alignment_heads=None, **fields)
    positions, embedding = state["decoder.positional_embedding"], state[f"{EMBEDDING}.weight"]
    positions.zero_()
    positions[: dims.n_text_state] = 100 * torch.eye(dims.n_text_state)
    # The prompt has four tokens, and the output of the last one is the first of the text.
    for position, token in enumerate([*checkpoint.tokenizer().encode(" a (quick fox"), END], 3):
        embedding[token, position] = 4.0
    return checkpoint


def written(folder: Path) -> str:
    """What the runtime writes for a second of sound."""
    loaded = load_model(folder)
    options: dict[str, Any] = {"language": "en", "without_timestamps": True, "temperature": 0.0}
    return transcribe(sound(1.0), loaded, **options).text


@pytest.mark.parametrize("stated", ["generation_config.json", "config.json"])
def test_a_label_with_a_suppressed_token_can_be_written_if_the_source_allows_it(
    tmp_path: Path, stated: str
) -> None:
    source = tmp_path / "source"
    export_hf(writes_brackets(), source, dtype="float32")
    export_mlx(read_checkpoint(source), tmp_path / "default", dtype="float32")
    assert "(" not in written(tmp_path / "default")
    assert ModelConfig.from_file(tmp_path / "default" / "config.json").suppress_tokens is None

    edit_json(source / "generation_config.json", suppress_tokens=None)
    edit_json(source / stated, suppress_tokens=[])
    own = read_checkpoint(source)
    assert own.suppress_tokens == ()
    export_mlx(own, tmp_path / "own", dtype="float32")
    assert "a (quick fox" in written(tmp_path / "own")

    # A stage reads what another has written, and exports it.
    again = read_checkpoint(tmp_path / "own")
    assert again.suppress_tokens == ()
    export_hf(again, tmp_path / "hf", dtype="float32")
    config = json.loads((tmp_path / "hf" / "generation_config.json").read_text())
    assert BRACKET not in config["suppress_tokens"]
    assert set(config["suppress_tokens"]) == set(again.tokenizer().control_tokens)
    assert read_checkpoint(tmp_path / "hf").suppress_tokens == ()


def test_a_list_of_the_checkpoint_is_kept(tmp_path: Path) -> None:
    folder = tiny_hf_folder(tmp_path / "hf")
    tokenizer = read_checkpoint(folder).tokenizer()
    control = list(tokenizer.control_tokens)
    edit_json(folder / "generation_config.json", suppress_tokens=[40, BRACKET, *control])
    assert read_checkpoint(folder).suppress_tokens == (BRACKET, 40)
    everything = [*reversed(tokenizer.suppressed_tokens)]
    edit_json(folder / "generation_config.json", suppress_tokens=everything)
    assert read_checkpoint(folder).suppress_tokens is None
    edit_json(folder / "generation_config.json", suppress_tokens=[-1])
    assert read_checkpoint(folder).suppress_tokens is None


@pytest.mark.parametrize("stated", ["-1", [1.5], [True], {"a": 1}, [[1]]])
def test_what_is_no_list_of_ids_is_named(tmp_path: Path, stated: Any) -> None:
    folder = tiny_hf_folder(tmp_path / "hf")
    edit_json(folder / "generation_config.json", suppress_tokens=stated)
    with pytest.raises(ValueError, match=r"generation_config\.json: suppress_tokens is not a list"):
        read_checkpoint(folder)


def test_the_teacher_labels_with_the_tokens_it_may_write() -> None:
    for own, writes in ((None, False), ((), True)):
        checkpoint = writes_brackets(suppress_tokens=own)
        states = torch.zeros(1, 50, checkpoint.dims.n_audio_state)
        prompts = Prompts.of(checkpoint, "en")
        model = Whisper.from_checkpoint(checkpoint)
        (row,) = decode_greedy(model, states, None, prompts, timestamps=False)
        assert (BRACKET in row) == writes


def test_a_ctranslate2_folder_states_them_too(
    tmp_path: Path, ctranslate2_folders: dict[str, Path]
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(ctranslate2_folders["float32"], folder)
    for stated, expected in (([], ()), ([BRACKET], (BRACKET,)), (None, None)):
        edit_json(folder / "config.json", suppress_ids=stated)
        assert read_checkpoint(folder).suppress_tokens == expected


def test_labels_that_cannot_be_written_are_counted() -> None:
    counted = SuppressedLabels(Prompts.of(tiny_teacher(), "en"))
    for text in ("a fox", "a (quick) fox (or two)", "(x", "50 + 50"):
        counted.add(text)
    assert counted.texts == 3
    assert counted.counts[BRACKET] == 2
    with pytest.warns(SuppressedLabelWarning, match=r"3 texts have tokens .*'\(' \(2\)"):
        counted.warn()


def test_prepare_warns_of_them_unless_the_model_writes_them(tmp_path: Path) -> None:
    speech = [tiny_utterance(tmp_path / "a.wav", text="a (quick fox")]
    with pytest.warns(SuppressedLabelWarning, match=r"1 texts have tokens .*'\(' \(1\)"):
        prepare(tiny_teacher(), speech, PrepareSettings(), tmp_path / "default")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        allowed = dataclasses.replace(tiny_teacher(), suppress_tokens=())
        prepare(allowed, speech, PrepareSettings(), tmp_path / "allowed")
        silent = PrepareSettings(labels="none", features="mel")
        prepare(tiny_teacher(), speech, silent, tmp_path / "none")


def test_the_command_says_it_in_one_line(tmp_path: Path) -> None:
    folder = tiny_speech(tmp_path / "speech", 2)
    lines = (folder / "metadata.jsonl").read_text().replace("the quick", "the (quick)")
    (folder / "metadata.jsonl").write_text(lines)
    export_mlx(tiny_teacher(), tmp_path / "teacher", dtype="float32")
    arguments = ["prepare", tmp_path / "teacher", tmp_path / "prepared", "--data", folder]
    done = CliRunner().invoke(main, list(map(str, arguments)))
    assert done.exit_code == 0, done.output
    assert "Warning: 1 texts have tokens that the model never writes" in done.output
