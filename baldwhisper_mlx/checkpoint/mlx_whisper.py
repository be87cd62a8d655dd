"""Reads Whisper folders in mlx-whisper's format, as mlx-community publishes them.

They have OpenAI's dimensions in `config.json`, separate query, key and value projections, possibly
quantized, and no vocabulary. Joining the rows of a quantized matrix does not change its values, so
such a model runs without being expanded. The vocabulary is one of OpenAI's two: the multilingual
one is the bundled model's, the English one is taken from an installed package.
"""

from __future__ import annotations

import json
import re
import zipfile
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, cast

import mlx.core as mx

from baldwhisper_mlx.checkpoint.files import BUNDLED, COMMUNITY_FILES, read_tensor_header
from baldwhisper_mlx.config import (
    CONFIG_FILE,
    VOCABULARY_FILE,
    Dtype,
    ModelConfig,
    default_alignment_heads,
)
from baldwhisper_mlx.files import peek_json
from baldwhisper_mlx.model.positions import sinusoids
from baldwhisper_mlx.quantization_config import Quantization, matrix_of
from baldwhisper_mlx.text.openai_vocabulary import (
    ENGLISH_ONLY_SIZE,
    PACKAGES,
    installed_rank_file,
    special_token_ids,
)
from baldwhisper_mlx.text.tokenizer import read_ranks

_DIMENSIONS = tuple(field.name for field in fields(ModelConfig) if field.name.startswith("n_"))
"""The ten dimensions of OpenAI's ModelDimensions."""

_PART = re.compile(r"(.+\.)(attn|cross_attn)\.(query|key|value)\.(weight|scales|biases|bias)")


def is_community(folder: Path) -> bool:
    """Whether `config.json` is one of mlx-whisper's: it has OpenAI's dimensions."""
    config = peek_json(folder / CONFIG_FILE)
    return config.get("model_type", "whisper") == "whisper" and set(_DIMENSIONS) <= config.keys()


def read_community(folder: Path) -> tuple[ModelConfig, dict[str, mx.array], dict[bytes, int]]:
    """Reads a folder in mlx-whisper's format.

    Returns:
        The config that the model would have as an exported one, its tensors under our names, and
        the ranks of its vocabulary.

    Raises:
        FileNotFoundError: no weights, or no package that has the vocabulary.
        ValueError: a damaged file, another architecture, or a quantization unlike MLX's default.
    """
    raw = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
    path = next((folder / name for name in COMMUNITY_FILES if (folder / name).is_file()), None)
    if path is None:
        raise FileNotFoundError(f"{folder}: none of {', '.join(COMMUNITY_FILES)}")
    if path.suffix == ".safetensors":
        read_tensor_header(path)  # refuses a truncated file, which MLX does not
    try:
        weights = cast(dict[str, mx.array], mx.load(str(path)))
    except (RuntimeError, ValueError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path}: damaged ({error})") from None
    heads = weights.pop("alignment_heads", None)
    try:
        weights = _fused(weights)
        ranks = _ranks(folder, raw["n_vocab"])
        dims = {name: raw[name] for name in _DIMENSIONS}
        special = special_token_ids(len(ranks), raw["n_vocab"])
        config = ModelConfig(
            **dims,
            special_tokens=special,
            is_multilingual=raw["n_vocab"] > ENGLISH_ONLY_SIZE,
            timestamp_begin=len(ranks) + len(special),
            alignment_heads=_alignment_heads(heads, raw["n_text_layer"], raw["n_text_head"]),
            dtype=_dtype(weights),
            quantization=_quantization(raw.get("quantization"), weights),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{folder}: not read as an mlx-whisper model ({error})") from None
    positions = "encoder.positional_embedding"
    if positions not in weights:  # mlx-whisper computes them when it builds the model
        table = sinusoids(config.n_audio_ctx, config.n_audio_state)
        weights[positions] = mx.array(table).astype(getattr(mx, config.dtype))
    return config, weights, ranks


def _fused(weights: dict[str, mx.array]) -> dict[str, mx.array]:
    """Joins the rows of query, key and value, in cross-attention of key and value."""
    groups: dict[str, dict[str, mx.array]] = {}
    result = {}
    for name, value in weights.items():
        match = _PART.fullmatch(name)
        if match is None or (match[2], match[3]) == ("cross_attn", "query"):
            result[name] = value
            continue
        fused = f"{match[1]}{match[2]}.{'qkv' if match[2] == 'attn' else 'kv'}.{match[4]}"
        groups.setdefault(fused, {})[match[3]] = value
    for name, parts in groups.items():
        if name.endswith(".bias"):  # Whisper's keys have no bias
            parts.setdefault("key", mx.zeros_like(parts["value"]))
        order = ("query", "key", "value") if ".qkv." in name else ("key", "value")
        result[name] = mx.concatenate([parts[part] for part in order])
    return result


def _alignment_heads(
    stored: mx.array | None, n_layer: int, n_head: int
) -> tuple[tuple[int, int], ...]:
    """Those stored, or the default heads, as in mlx-whisper."""
    if stored is not None:
        pairs: Any = stored.tolist()
        return tuple((int(layer), int(head)) for layer, head in pairs)
    return default_alignment_heads(n_layer, n_head)


def _quantization(raw: Any, weights: dict[str, mx.array]) -> Quantization | None:
    if raw is None:
        return None
    plain = {key: value for key, value in raw.items() if (key, value) != ("mode", "affine")}
    default = Quantization.from_dict(plain)
    matrices = [
        matrix_of(name)
        for name, value in weights.items()
        if name.endswith(".weight") and value.ndim == 2
    ]
    unquantized = [path for path in matrices if f"{path}.scales" not in weights]
    return replace(default, overrides=dict.fromkeys(unquantized))


def _dtype(weights: dict[str, mx.array]) -> Dtype:
    name = str(weights["encoder.conv1.weight"].dtype).removeprefix("mlx.core.")
    return cast(Dtype, name)


def _ranks(folder: Path, n_vocab: int) -> dict[bytes, int]:
    own = folder / VOCABULARY_FILE
    if own.is_file():
        return read_ranks(own)
    if n_vocab != ENGLISH_ONLY_SIZE:
        return read_ranks(BUNDLED / VOCABULARY_FILE)
    installed = installed_rank_file(n_vocab)
    if installed is None:
        raise FileNotFoundError(
            f"{folder}: an English-only model without {VOCABULARY_FILE}, and none of the packages "
            f"{', '.join(PACKAGES)} is installed, which have OpenAI's; "
            "`baldwhisper-convert export` makes a complete model"
        )
    return read_ranks(installed)
