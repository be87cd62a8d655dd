"""A tiny random model folder, made without torch, and audio files to feed it."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from baldwhisper_mlx.config import CONTROL_TOKENS, N_TIMESTAMPS, ModelConfig
from baldwhisper_mlx.decoding.decoder import Decoder

RATE = 16_000


def tiny_config(**changes: Any) -> ModelConfig:
    """Width 32, one layer on each side, 256 byte tokens, two languages; or as given."""
    names = [*CONTROL_TOKENS[:2], "<|en|>", "<|fr|>", *CONTROL_TOKENS[2:]]
    special = {name: 256 + i for i, name in enumerate(names)}
    fields: dict[str, Any] = {
        "n_mels": 80,
        "n_audio_ctx": 1500,
        "n_audio_state": 32,
        "n_audio_head": 2,
        "n_audio_layer": 1,
        "n_vocab": 256 + len(special) + N_TIMESTAMPS,
        "n_text_ctx": 64,
        "n_text_state": 32,
        "n_text_head": 2,
        "n_text_layer": 1,
        "special_tokens": special,
        "is_multilingual": True,
        "timestamp_begin": 256 + len(special),
        "alignment_heads": ((0, 0),),
        "dtype": "float32",
    }
    return ModelConfig(**(fields | changes))


def write_model(folder: Path, config: ModelConfig) -> Path:
    """Writes a model folder with random weights."""
    import mlx.core as mx
    from mlx.utils import tree_flatten

    from baldwhisper_mlx.model.whisper import Whisper

    rng, dtype = np.random.default_rng(0), getattr(mx, config.dtype)
    folder.mkdir(parents=True)
    weights = {
        name: mx.array(0.3 * rng.standard_normal(value.shape, np.float32)).astype(dtype)
        if mx.issubdtype(value.dtype, mx.floating)
        else mx.arange(value.size, dtype=value.dtype).reshape(value.shape)
        for name, value in tree_flatten(Whisper(config).parameters())
    }
    mx.save_safetensors(str(folder / "model.safetensors"), weights)
    (folder / "config.json").write_text(json.dumps(config.to_dict()), encoding="utf-8")
    lines = (f"{base64.b64encode(bytes([i])).decode()} {i}\n" for i in range(256))
    (folder / "vocabulary.tiktoken").write_text("".join(lines), encoding="ascii")
    return folder


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model") / "tiny", tiny_config())


def tone(seconds: float = 1.0, rate: int = RATE) -> np.ndarray[Any, np.dtype[np.float32]]:
    """A 440 Hz tone at half scale, float32."""
    time = np.arange(round(seconds * rate), dtype=np.float64) / rate
    return (0.5 * np.sin(2 * np.pi * 440 * time)).astype(np.float32)


@pytest.fixture
def wav(tmp_path: Path) -> Path:
    path = tmp_path / "tone.wav"
    soundfile.write(path, tone(), RATE)
    return path


@pytest.fixture
def encoded_sizes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many windows each encoding so far was of."""
    sizes: list[int] = []
    encode = Decoder.encode

    def counted(self: Decoder, mel: Any, n_frames: Any) -> None:
        sizes.append(len(n_frames))
        encode(self, mel, n_frames)

    monkeypatch.setattr(Decoder, "encode", counted)
    return sizes
