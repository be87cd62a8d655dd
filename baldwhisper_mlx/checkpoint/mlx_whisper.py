"""Reads Whisper folders in mlx-whisper's format, as mlx-community publishes them.

They have OpenAI's dimensions in `config.json`, separate query, key and value projections, possibly
quantized, and no vocabulary. Joining the rows of a quantized matrix does not change its values, so
such a model runs without being expanded. The vocabulary is one of OpenAI's two, which come with
the package.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import mlx.core as mx

from baldwhisper_mlx.checkpoint.mlx_whisper_config import (
    HEADS,
    POSITIONS,
    CommunityModel,
    fused_groups,
    read_community_config,
)
from baldwhisper_mlx.config import ModelConfig
from baldwhisper_mlx.model.positions import sinusoids
from baldwhisper_mlx.terminal import message_of


def read_community(folder: Path) -> tuple[ModelConfig, dict[str, mx.array], CommunityModel]:
    """Reads a folder in mlx-whisper's format.

    Returns:
        The config that the model would have as an exported one, its tensors under our names, and
        what was read before them: the vocabulary and the header.

    Raises:
        FileNotFoundError: no weights, or no package that has the vocabulary.
        ValueError: a damaged file, another architecture, or a quantization unlike MLX's default.
    """
    model = read_community_config(folder)
    config, path = model.config, model.weights
    try:
        weights = cast(dict[str, mx.array], mx.load(str(path)))
        if path.suffix == ".npz":  # its checksums are compared only when the values are read
            mx.eval(weights)
    # All exceptions: of MLX, and of zipfile and zlib for damaged data behind a sound header.
    except Exception as error:
        reason = message_of(error).splitlines()[-1]
        raise ValueError(f"{path}: damaged ({reason})") from None
    try:
        heads: Any = weights.pop(HEADS, None)
        if heads is not None:
            pairs = tuple((int(layer), int(head)) for layer, head in heads.tolist())
            config = replace(config, alignment_heads=pairs)
        weights = _fused(weights)
    except (RuntimeError, ValueError) as error:
        raise ValueError(f"{path}: damaged ({error})") from None
    if POSITIONS not in weights:  # mlx-whisper computes them when it builds the model
        table = sinusoids(config.n_audio_ctx, config.n_audio_state)
        weights[POSITIONS] = mx.array(table).astype(getattr(mx, config.dtype))
    return config, weights, model


def _fused(weights: dict[str, mx.array]) -> dict[str, mx.array]:
    """Joins the rows of query, key and value, in cross-attention of key and value."""
    result = {}
    for name, parts in fused_groups(weights).items():
        arrays = [weights[part] for part in parts]
        if name.endswith(".bias") and parts != [name] and not any(".key." in p for p in parts):
            # Whisper's keys have no bias; theirs stand before the values.
            arrays.insert(-1, mx.zeros_like(arrays[-1]))
        result[name] = arrays[0] if len(arrays) == 1 else mx.concatenate(arrays)
    return result
