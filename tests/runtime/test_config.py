"""The config is strict: what it does not know, or knows to be wrong, it refuses by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baldwhisper_mlx.config import AUDIO_BUCKET, ModelConfig
from baldwhisper_mlx.quantization_config import BITS, Grouping, Quantization, matrix_of, storage
from tests.runtime.conftest import tiny_config

MIXED = Quantization(
    bits=8,
    group_size=64,
    overrides={
        "decoder.token_embedding": Grouping(bits=4, group_size=32),
        "encoder.blocks.0.mlp1": None,
    },
)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"embedding_rank": 8, "embedding_projections": "separate", "embedding_dense_rows": 5},
        {"audio_context": "dynamic", "quantization": Quantization(bits=4, group_size=32)},
        {"quantization": MIXED},
        {"alignment_heads": ()},
        {"languages": ("fr",)},
        {"suppress_tokens": ()},
        {"suppress_tokens": (1, 7)},
        {"languages": ("en",), "is_multilingual": False},
    ],
)
def test_round_trip_through_a_file(tmp_path: Path, changes: dict[str, Any]) -> None:
    config, path = tiny_config(**changes), tmp_path / "config.json"
    path.write_text(json.dumps(config.to_dict()))
    assert ModelConfig.from_file(path) == config


@pytest.mark.parametrize("key", sorted(tiny_config().to_dict()))
def test_every_key_is_needed(key: str) -> None:
    raw = tiny_config().to_dict()
    del raw[key]
    with pytest.raises(ValueError, match=r"not a baldwhisper model|format_version|missing"):
        ModelConfig.from_dict(raw)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"surprise": 1}, "unknown 'surprise'"),
        ({"format_version": 2}, "format_version 2"),
        ({"model_type": "whisper"}, "export"),
        ({"n_text_layer": 0}, "n_text_layer"),
        ({"n_text_layer": True}, "n_text_layer"),
        ({"n_text_layer": 2.0}, "n_text_layer"),
        ({"n_text_head": 3}, "n_text_head"),
        ({"n_audio_state": 64}, "n_audio_state"),
        ({"n_vocab": 2000}, "timestamp_begin"),
        ({"special_tokens": {}}, "special_tokens"),
        ({"special_tokens": []}, "special_tokens"),
        ({"is_multilingual": 1}, "is_multilingual"),
        ({"languages": []}, "languages"),
        ({"languages": "en"}, "languages"),
        ({"languages": ["xx"]}, "languages"),
        ({"languages": ["en", "en"]}, "languages"),
        ({"languages": ["en", 3]}, "languages"),
        ({"languages": ["endoftext"]}, "languages"),
        ({"languages": ["fr"], "is_multilingual": False}, "languages"),
        ({"suppress_tokens": "-1"}, "suppress_tokens"),
        ({"suppress_tokens": [-1]}, "suppress_tokens"),
        ({"suppress_tokens": [1, 1]}, "suppress_tokens"),
        ({"suppress_tokens": [True]}, "suppress_tokens"),
        ({"suppress_tokens": [10**6]}, "suppress_tokens"),
        ({"alignment_heads": [[5, 0]]}, "alignment_heads"),
        ({"alignment_heads": [[0]]}, "alignment_heads"),
        ({"alignment_heads": 3}, "alignment_heads"),
        ({"dtype": "int8"}, "dtype"),
        ({"embedding_rank": 33}, "embedding_rank"),
        ({"embedding_mean": True}, "embedding_rank is null"),
        ({"embedding_rank": 4, "embedding_projections": "two"}, "embedding_projections"),
        ({"embedding_rank": 4, "embedding_dense_rows": -1}, "embedding_dense_rows"),
        ({"audio_context": "short"}, "audio_context"),
        ({"audio_context_margin": -1}, "audio_context_margin"),
        ({"quantization": {"bits": 4}}, "missing group_size"),
        ({"quantization": {"bits": 7, "group_size": 64}}, "quantization.bits"),
        ({"quantization": {"bits": 8.0, "group_size": 64}}, "quantization.bits"),
        ({"quantization": {"bits": 8, "group_size": 16}}, "quantization.group_size"),
        ({"quantization": {"bits": 8, "group_size": 64, "mode": "affine"}}, "unknown 'mode'"),
        ({"quantization": 4}, "quantization"),
        ({"quantization": {"bits": 8, "group_size": 64, "overrides": 1}}, "quantization"),
        ({"quantization": {"bits": 8, "group_size": 64, "overrides": {"a": 1}}}, "overrides"),
        (
            {"quantization": {"bits": 8, "group_size": 64, "overrides": {"a": {"bits": 4}}}},
            r"overrides\['a'\]: missing group_size",
        ),
    ],
)
def test_bad_values_are_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ModelConfig.from_dict(tiny_config().to_dict() | changes)


def test_suppress_tokens_are_optional() -> None:
    raw = tiny_config().to_dict()
    assert "suppress_tokens" not in raw
    assert ModelConfig.from_dict(raw | {"suppress_tokens": None}) == tiny_config()
    assert ModelConfig.from_dict(raw | {"suppress_tokens": []}).suppress_tokens == ()


def test_languages_are_optional() -> None:
    raw = tiny_config().to_dict()
    assert "languages" not in raw
    assert ModelConfig.from_dict(raw | {"languages": None}) == tiny_config()
    assert ModelConfig.from_dict(raw | {"languages": ["en"]}).languages == ("en",)


def test_a_quantization_without_overrides_still_reads() -> None:
    raw = tiny_config().to_dict() | {"quantization": {"bits": 8, "group_size": 64}}
    assert ModelConfig.from_dict(raw).quantization == Quantization(bits=8, group_size=64)


def test_which_grouping_a_matrix_has() -> None:
    assert MIXED.of("decoder.token_embedding") == Grouping(bits=4, group_size=32)
    assert MIXED.of("encoder.blocks.0.mlp1") is None
    assert MIXED.of("encoder.blocks.0.mlp2") == Grouping(bits=8, group_size=64)


@given(bits=st.sampled_from(BITS), leaf=st.sampled_from(["weight", "scales", "biases"]))
def test_tensors_belong_to_their_matrix(bits: int, leaf: str) -> None:
    assert matrix_of(f"a.b.{leaf}") == "a.b"
    assert matrix_of("decoder.positional_embedding") == "decoder.positional_embedding"
    assert str(Grouping(bits=bits, group_size=32)) == f"{bits} bits in groups of 32"


def test_storage_is_told_by_part_and_precision() -> None:
    sizes = {
        "encoder.conv1.weight": 300_000,
        "encoder.blocks.0.mlp1.weight": 100,
        "decoder.blocks.0.mlp1.weight": 2_000_000,
        "decoder.blocks.0.mlp1.scales": 200_000,
        "decoder.blocks.0.mlp1.biases": 200_000,
        "decoder.blocks.0.mlp1.bias": 7,
        "decoder.token_embedding.weight": 5_000_000,
        "decoder.token_embedding.scales": 0,
        "decoder.token_embedding.biases": 0,
    }
    assert storage(sizes, "float16", MIXED) == {
        "encoder": "0.3 MB in float16",
        "decoder": "2.4 MB in 8 bits in groups of 64, 7 bytes in float16",
        "token embedding": "5.0 MB in 4 bits in groups of 32",
    }
    plain = {"encoder.conv1.weight": 10, "decoder.ln.weight": 20, "decoder.token_embedding.x": 30}
    assert storage(plain, "float32", None) == {
        "encoder": "10 bytes in float32",
        "decoder": "20 bytes in float32",
        "token embedding": "30 bytes in float32",
    }


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b"[" * 100_000])
def test_a_file_that_is_no_config(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"config\.json"):
        ModelConfig.from_file(path)


@given(n_frames=st.integers(0, 3000), margin=st.integers(0, 200))
def test_audio_positions(n_frames: int, margin: int) -> None:
    short = tiny_config(audio_context="dynamic", audio_context_margin=margin)
    positions = short.audio_positions(n_frames)
    assert min(1500, n_frames / 2 + margin) <= positions <= 1500
    assert positions == 1500 or positions % AUDIO_BUCKET == 0
    assert positions < n_frames / 2 + margin + AUDIO_BUCKET + 1
    assert tiny_config().audio_positions(n_frames) == 1500
