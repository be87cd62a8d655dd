"""mlx-community's folders in the runtime, compared with mlx-whisper."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from mlx import nn

import baldwhisper_mlx
from baldwhisper_mlx.checkpoint.kind import is_community
from baldwhisper_mlx.checkpoint.load import LoadedModel, load_model
from baldwhisper_mlx.checkpoint.mlx_whisper import read_community
from baldwhisper_mlx.checkpoint.weights import build_model
from tests.runtime.conftest import tone
from tests.support import tiny
from tests.support.tiny_vocabulary import tiny_vocabulary

QUANTIZATIONS: dict[str, dict[str, int] | None] = {
    "float32": None,
    "8 bits": {"bits": 8, "group_size": 64},
    "4 bits": {"bits": 4, "group_size": 32},
}


def write(
    folder: Path, quantization: dict[str, int] | None = None, file: str = "weights.safetensors"
) -> Path:
    """A tiny folder as mlx-examples' convert.py writes it, with our vocabulary beside it."""
    checkpoint = tiny.tiny_form("dense")
    tiny.tiny_mlx_folder(
        folder, checkpoint.dims, checkpoint.state, file=file, quantization=quantization
    )
    (folder / "vocabulary.tiktoken").write_bytes(tiny_vocabulary().rank_file())
    return folder


def theirs(quantization: dict[str, int] | None) -> Any:
    """Logits of mlx-whisper's model with the same weights."""
    checkpoint = tiny.tiny_form("dense")
    model = tiny.tiny_mlx_model(checkpoint.dims, checkpoint.state)
    if quantization:
        nn.quantize(model, **quantization)
    mel, tokens = inputs()
    return np.array(model(mel, tokens))


def inputs() -> tuple[mx.array, mx.array]:
    mel = mx.random.normal((1, 3000, 80), key=mx.random.key(3))
    return mel, mx.array([[407, 414, 508, 512, 7, 99]])


def logits(model: Any) -> Any:
    mel, tokens = inputs()
    cache = model.make_cache()
    model.encode(mel, [3000], cache)
    return np.array(model.logits(model.decoder(tokens, cache)))


@pytest.mark.parametrize("name", QUANTIZATIONS)
@pytest.mark.parametrize("keep", [True, False])
def test_logits(name: str, keep: bool, tmp_path: Path) -> None:
    folder = write(tmp_path / "m", QUANTIZATIONS[name])
    config, weights, _ = read_community(folder)
    assert (config.quantization is not None) == (name != "float32")
    model = build_model(weights, config, str(folder), "float32", keep_quantized=keep)
    expected = theirs(QUANTIZATIONS[name])
    np.testing.assert_allclose(logits(model), expected, atol=1e-4 * np.abs(expected).max())
    block = model.decoder.blocks[0]
    assert isinstance(block.cross_attn.kv, nn.QuantizedLinear) == (keep and name != "float32")


@pytest.mark.parametrize("file", ["weights.safetensors", "weights.npz"])
def test_every_weights_file_loads(file: str, tmp_path: Path) -> None:
    loaded = load_model(write(tmp_path / "m", {"bits": 8, "group_size": 64}, file))
    assert isinstance(loaded, LoadedModel)
    assert loaded.config.alignment_heads == tiny.ALIGNMENT_HEADS
    special = tiny_vocabulary().special_tokens
    assert loaded.config.special_tokens == special
    expected = theirs({"bits": 8, "group_size": 64})
    np.testing.assert_allclose(logits(loaded.model), expected, atol=1e-3 * np.abs(expected).max())


def openai_sized(folder: Path, n_vocab: int) -> Path:
    """A narrow model with one of OpenAI's vocabularies, which the folder does not have."""
    dims = tiny.tiny_dims(n_vocab=n_vocab, n_audio_state=32, n_text_state=32)
    settings = {"bits": 8, "group_size": 32}
    return tiny.tiny_mlx_folder(folder, dims, tiny.tiny_state(dims), quantization=settings)


@pytest.mark.parametrize(
    ("n_vocab", "languages"), [(51864, 99), (51865, 99), (51866, 100)], ids=["en", "v2", "v3"]
)
def test_openais_vocabularies_are_found(n_vocab: int, languages: int, tmp_path: Path) -> None:
    folder = openai_sized(tmp_path / "m", n_vocab)
    loaded = load_model(folder)
    assert len(loaded.tokenizer.languages) == languages
    assert loaded.config.is_multilingual == (n_vocab > 51864)
    assert loaded.tokenizer.timestamp_begin == n_vocab - 1501
    assert loaded.tokenizer.decode(loaded.tokenizer.encode("c\u0153ur")) == "c\u0153ur"
    transcript = baldwhisper_mlx.transcribe(tone(1), loaded, language="en", temperature=0.0)
    assert transcript.duration == 1.0


def test_no_other_package_is_needed_for_the_vocabulary(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for n_vocab in (51864, 51865):
        load_model(openai_sized(tmp_path / str(n_vocab), n_vocab))


def test_what_is_one_of_theirs(tmp_path: Path, loaded: LoadedModel) -> None:
    folder = write(tmp_path / "m")
    assert is_community(folder)
    assert not is_community(loaded.path)
    assert not is_community(tmp_path)
    tiny.edit_json(folder / "config.json", model_type="wav2vec2")
    assert not is_community(folder)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"quantization": {"bits": 8}}, "missing group_size"),
        ({"quantization": {"bits": 8, "group_size": 64, "mode": "mxfp4"}}, "unknown 'mode'"),
        ({"quantization": {"bits": 4, "group_size": 64}}, "of another shape"),
        ({"quantization": None}, "unexpected"),
        ({"n_text_layer": 4}, "missing: decoder.blocks.3"),
        ({"n_vocab": 1900}, "is not that of an OpenAI Whisper"),
        ({"n_mels": "80"}, "n_mels"),
    ],
)
def test_configs_that_do_not_fit(changes: dict[str, Any], match: str, tmp_path: Path) -> None:
    folder = write(tmp_path / "m", {"bits": 8, "group_size": 64})
    raw = json.loads((folder / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps(raw))
    with pytest.raises(ValueError, match=match):
        load_model(folder)


@pytest.mark.parametrize("cut", [1000, -100])
@pytest.mark.parametrize("file", ["weights.safetensors", "weights.npz"])
def test_damaged_weights(file: str, cut: int, tmp_path: Path) -> None:
    folder = write(tmp_path / "m", file=file)
    (folder / file).write_bytes((folder / file).read_bytes()[:cut])
    with pytest.raises(ValueError, match=file.replace(".", r"\.")):
        load_model(folder)
    (folder / file).unlink()
    with pytest.raises(FileNotFoundError, match="none of"):
        load_model(folder)
