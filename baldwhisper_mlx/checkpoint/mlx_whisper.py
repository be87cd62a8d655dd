"""Reads Whisper folders in mlx-whisper's format, as mlx-community publishes them.

They have OpenAI's dimensions in `config.json`, one product less fused than ours, quantized or
not, and no vocabulary. Fusing query, key and value by rows changes nothing of a quantized matrix,
so such a model runs from its own integers. The vocabulary is one of OpenAI's two: the multilingual
one is the bundled model's, the English one is taken from a package that has it.
"""

from __future__ import annotations

import importlib.util
import json
import re
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import mlx.core as mx

from baldwhisper_mlx.checkpoint.files import BUNDLED, COMMUNITY_FILES, read_tensor_header
from baldwhisper_mlx.config import (
    CONFIG_FILE,
    CONTROL_TOKENS,
    N_TIMESTAMPS,
    VOCABULARY_FILE,
    Dtype,
    ModelConfig,
)
from baldwhisper_mlx.quantization_config import Quantization, matrix_of
from baldwhisper_mlx.text.languages import LANGUAGES
from baldwhisper_mlx.text.tokenizer import read_ranks

_DIMENSIONS = (
    *("n_mels", "n_audio_ctx", "n_audio_state", "n_audio_head", "n_audio_layer"),
    *("n_vocab", "n_text_ctx", "n_text_state", "n_text_head", "n_text_layer"),
)
ENGLISH_ONLY = 51864
"""Tokens of OpenAI's English-only models; all others have more."""

_PACKAGES = ("mlx_whisper", "whisper")
_PART = re.compile(r"(.+\.)(attn|cross_attn)\.(query|key|value)\.(weight|scales|biases|bias)")


def is_community(folder: Path) -> bool:
    """Whether `config.json` is one of mlx-whisper's: OpenAI's dimensions and no type of ours."""
    try:
        config = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return (
        isinstance(config, dict)
        and config.get("model_type", "whisper") == "whisper"
        and set(_DIMENSIONS) <= config.keys()
    )


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
        languages = raw["n_vocab"] - len(ranks) - len(CONTROL_TOKENS) - N_TIMESTAMPS
        if not 0 < languages <= len(LANGUAGES):
            raise ValueError(f"n_vocab {raw['n_vocab']} is not that of an OpenAI Whisper")
        special = _special_tokens(len(ranks), languages)
        config = ModelConfig(
            **dims,
            special_tokens=special,
            is_multilingual=raw["n_vocab"] > ENGLISH_ONLY,
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
        weights[positions] = table.astype(getattr(mx, config.dtype))
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
    """Those stored, or all heads of the last half of the layers, as in mlx-whisper."""
    if stored is not None:
        pairs: Any = stored.tolist()
        return tuple((int(layer), int(head)) for layer, head in pairs)
    return tuple((i, j) for i in range(n_layer // 2, n_layer) for j in range(n_head))


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


def _special_tokens(first: int, languages: int) -> dict[str, int]:
    """Ids in the order of `whisper.tokenizer.get_encoding`."""
    codes = [f"<|{code}|>" for code in list(LANGUAGES)[:languages]]
    names = [*CONTROL_TOKENS[:2], *codes, *CONTROL_TOKENS[2:]]
    return {name: first + i for i, name in enumerate(names)}


def _ranks(folder: Path, n_vocab: int) -> dict[bytes, int]:
    own = folder / VOCABULARY_FILE
    if own.is_file():
        return read_ranks(own)
    if n_vocab != ENGLISH_ONLY:
        return read_ranks(BUNDLED / VOCABULARY_FILE)
    for package in _PACKAGES:
        # find_spec, because importing either would load torch or numba for one file.
        spec = importlib.util.find_spec(package)
        for root in (spec.submodule_search_locations or []) if spec else []:
            path = Path(root) / "assets" / "gpt2.tiktoken"
            if path.is_file():
                return read_ranks(path)
    raise FileNotFoundError(
        f"{folder}: an English-only model without its vocabulary, and neither of the packages "
        f"{' and '.join(_PACKAGES)} is installed to take OpenAI's from; "
        "`baldwhisper-convert export` makes a complete model"
    )


def sinusoids(length: int, channels: int) -> mx.array:
    """OpenAI's `whisper.model.sinusoids`: sine then cosine, timescales 1 to 10000."""
    scale = mx.exp(-mx.log(mx.array(10000.0)) * mx.arange(channels // 2) / (channels // 2 - 1))
    angles = mx.arange(length)[:, None] * scale[None]
    return mx.concatenate([mx.sin(angles), mx.cos(angles)], axis=1)
