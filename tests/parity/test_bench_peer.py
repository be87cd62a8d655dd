"""The peer of `baldwhisper bench`: the same weights in mlx-whisper; and work counted by torch."""

from __future__ import annotations

import importlib.util
from dataclasses import asdict
from pathlib import Path

import mlx.core as mx
import mlx_whisper
import numpy as np
import pytest
import soundfile
import torch
from click.testing import CliRunner

from baldwhisper_mlx.bench import mlx_whisper as peer
from baldwhisper_mlx.bench import roofline
from baldwhisper_mlx.bench.runtimes import Ours
from baldwhisper_mlx.checkpoint.mlx_whisper import read_community, sinusoids
from baldwhisper_mlx.checkpoint.mlx_whisper_writer import write_folder
from baldwhisper_mlx.cli.main import cli
from baldwhisper_mlx.config import SAMPLE_RATE
from baldwhisper_mlx.text.languages import LANGUAGES
from tests.runtime.conftest import tiny_config, tone, write_model
from tests.support import tiny

OPENAI_VOCABULARY = Path(mlx_whisper.__file__).parent / "assets" / "multilingual.tiktoken"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model with OpenAI's multilingual vocabulary, which mlx-whisper takes for granted."""
    ranks = 50257
    base = tiny_config().special_tokens
    control = [name for name in base if name not in ("<|en|>", "<|fr|>")]
    names = [*control[:2], *(f"<|{code}|>" for code in list(LANGUAGES)[:99]), *control[2:]]
    special = {name: ranks + i for i, name in enumerate(names)}
    config = tiny_config(
        n_vocab=51865,
        special_tokens=special,
        timestamp_begin=ranks + len(special),
        n_text_ctx=448,
    )
    path = write_model(tmp_path_factory.mktemp("peer") / "model", config)
    (path / "vocabulary.tiktoken").write_bytes(OPENAI_VOCABULARY.read_bytes())
    weights = dict(mx.load(str(path / "model.safetensors")))
    weights["encoder.positional_embedding"] = sinusoids(1500, 32)
    mx.eval(weights)
    mx.save_safetensors(str(path / "model.safetensors"), weights)
    return path


@pytest.fixture(scope="module")
def theirs(folder: Path) -> Path:
    return write_folder(folder, folder.parent / "theirs")


def test_no_weight_is_lost_on_the_way(folder: Path, theirs: Path, tmp_path: Path) -> None:
    expected = dict(mx.load(str(folder / "model.safetensors")))
    # ours to theirs, and theirs, in half precision as it is published, to theirs
    stored = dict(mx.load(str(theirs / "weights.safetensors")))
    assert {value.dtype for value in stored.values()} == {mx.float32}  # of the CPU
    published = tmp_path / "published"
    published.mkdir()
    half = {name: value.astype(mx.float16) for name, value in stored.items()}
    mx.save_safetensors(str(published / "weights.safetensors"), half)
    (published / "config.json").write_bytes((theirs / "config.json").read_bytes())
    (published / "vocabulary.tiktoken").write_bytes(OPENAI_VOCABULARY.read_bytes())
    for made in (theirs, write_folder(published, tmp_path / "again")):
        (made / "vocabulary.tiktoken").write_bytes(OPENAI_VOCABULARY.read_bytes())
        config, found, _ = read_community(made)
        assert found.keys() == expected.keys()
        assert {value.dtype for value in found.values()} == {mx.float32}
        for name, value in expected.items():
            if name.endswith(("qkv.bias", "kv.bias")):  # Whisper's keys have no bias to keep
                width = config.n_text_state
                start = width if ".qkv." in name else 0
                value = mx.array(value)
                value[start : start + width] = 0
            np.testing.assert_allclose(np.array(found[name]), np.array(value), atol=2e-3)


def test_what_mlx_whisper_cannot_read_is_refused(folder: Path, tmp_path: Path) -> None:
    factorized = write_model(tmp_path / "factorized", tiny_config(embedding_rank=8))
    with pytest.raises(ValueError, match="dense embedding"):
        write_folder(factorized, tmp_path / "out")
    moved = write_model(tmp_path / "moved", tiny_config())  # random positions
    with pytest.raises(ValueError, match="encoder positions"):
        write_folder(moved, tmp_path / "out")


def test_both_do_what_a_case_asks(folder: Path, theirs: Path, tmp_path: Path) -> None:
    audio = str(tmp_path / "a.wav")
    soundfile.write(audio, tone(1.0), SAMPLE_RATE)
    for runtime in (Ours(str(folder)), peer.MlxWhisper(str(theirs))):
        assert runtime.describe()["memory_dtype"] == "float32"
        assert runtime.decode(batch=2, tokens=3, timestamps=False)()["tokens"] == 6
        assert runtime.decode(batch=1, tokens=3, timestamps=True)()["tokens"] == 3
        assert runtime.encode(seconds=30.0)() == {}
        assert runtime.first_token(audio=audio, language=None)() == {"tokens": 1}
        found = runtime.transcribe(audio=audio, language="en", temperature=0.0)()
        assert set(found) == {"tokens", "windows", "fallbacks", "text"}
        assert found["fallbacks"] == 0


def test_the_peer_as_a_program(
    theirs: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    audio = str(tmp_path / "a.wav")
    soundfile.write(audio, tone(1.0), SAMPLE_RATE)
    monkeypatch.setattr("sys.argv", ["-c", str(theirs), audio, "en", "0.0"])
    peer.print_text()
    assert capsys.readouterr().out.endswith("\n")


def test_a_peer_that_cannot_be_is_said_to_be_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    factorized = str(write_model(tmp_path / "factorized", tiny_config(embedding_rank=8)))
    command = ["bench", "--student", factorized, "--teacher", factorized, "--peer", "mlx-whisper"]
    result = CliRunner().invoke(cli, [*command, "-p", "paper"])
    assert result.exit_code == 1
    assert "mlx-whisper needs a dense embedding" in result.stderr

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    command = ["bench", "--student", ".", "--teacher", ".", "--peer", "mlx-whisper", "-p", "paper"]
    result = CliRunner().invoke(cli, command)
    assert result.exit_code == 1
    assert "mlx-whisper is not installed" in result.stderr


def test_encoding_costs_what_torch_counts() -> None:
    from torch.utils.flop_counter import FlopCounterMode
    from whisper.model import ModelDimensions, Whisper, disable_sdpa

    dims = tiny.tiny_dims()
    model = Whisper(ModelDimensions(**asdict(dims))).eval()
    mel = torch.zeros(1, dims.n_mels, 2 * dims.n_audio_ctx)
    # fused attention on a CPU escapes the counter
    with torch.no_grad(), disable_sdpa(), FlopCounterMode(display=False) as counter:
        states = model.encoder(mel)
        for block in model.decoder.blocks:
            block.cross_attn.key(states)
            block.cross_attn.value(states)
    config = tiny_config(**{k: v for k, v in asdict(dims).items() if k != "n_vocab"})
    assert roofline.encode_flops(config, 1500) == counter.get_total_flops()
