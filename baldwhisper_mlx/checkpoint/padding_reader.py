"""Reads `padding.safetensors`, the constants of a padded audio context.

`padding_file.py` writes it; docs/format.md describes it.
"""

from __future__ import annotations

from pathlib import Path
from typing import cast

import mlx.core as mx

from baldwhisper_mlx.checkpoint.files import PADDING_FORMAT
from baldwhisper_mlx.checkpoint.tensor_header import (
    TensorInfo,
    read_tensor_header,
    read_tensor_metadata,
)
from baldwhisper_mlx.checkpoint.tensors import check_tensors
from baldwhisper_mlx.config import AUDIO_BUCKET, ModelConfig
from baldwhisper_mlx.model.padding import Padding
from baldwhisper_mlx.model.whisper import Whisper
from baldwhisper_mlx.terminal import quoted


def read_padding(path: Path, model: Whisper) -> Padding:
    """Reads `padding.safetensors` for a model.

    Raises:
        ValueError: damaged, of another format, or made for another model.
    """
    config = model.config
    if config.audio_context != "full":
        raise ValueError(
            f"{path}: the model was trained for a {config.audio_context} audio context, which "
            "needs no padding; delete the file"
        )
    stride, tail = read_padding_settings(path, config)
    heads, width = config.n_audio_head, config.n_audio_state
    n_keys = -(-config.n_audio_ctx // stride)
    keys = TensorInfo("F16", (config.n_audio_layer, heads, n_keys, width // heads))
    states = TensorInfo("F16", (config.n_audio_ctx, width))
    expected = {"keys": keys, "values": keys, "states": states}
    check_tensors(str(path), expected, read_tensor_header(path), any_float=True)
    try:
        tensors = cast(dict[str, mx.array], mx.load(str(path)))
    except RuntimeError as error:
        raise ValueError(f"{path}: damaged ({error})") from None
    dtype = model.encoder.ln_post.weight.dtype
    cast_tensors = {name: x.astype(dtype) for name, x in tensors.items()}
    mx.eval(cast_tensors)
    return Padding(**cast_tensors, stride=stride, tail=tail)


def read_padding_settings(path: Path, config: ModelConfig) -> tuple[int, int]:
    """Stride and tail of the constants, from the metadata of the file.

    Raises:
        ValueError: damaged, of another format, or out of range.
    """
    metadata = read_tensor_metadata(path)
    if metadata.get("format") != PADDING_FORMAT:
        raise ValueError(
            f"{path}: format {quoted(metadata.get('format'))} instead of {PADDING_FORMAT!r}"
        )
    settings = {}
    for key, most in (("stride", AUDIO_BUCKET), ("tail", config.n_audio_ctx)):
        text = metadata.get(key, "")
        # Not int() alone: it takes signs, spaces, underscores and thousands of digits.
        value = int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0
        if not 1 <= value <= most:
            raise ValueError(
                f"{path}: bad metadata: {key} {quoted(text)}; expected a whole number from 1 to "
                f"{most}"
            )
        settings[key] = value
    return settings["stride"], settings["tail"]
