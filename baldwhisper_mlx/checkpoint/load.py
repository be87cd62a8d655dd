"""From a folder or Hub id to a model that is ready to decode.

A checkpoint is checked before its first use: config, file sizes, names, shapes and types of all
tensors, stored indices, and the vocabulary.
Weights are read lazily; only a change of dtype copies them, tensor by tensor.
"""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast, get_args

import mlx.core as mx

from baldwhisper_mlx.checkpoint.files import check_files, find_model
from baldwhisper_mlx.checkpoint.kind import is_community
from baldwhisper_mlx.checkpoint.mlx_whisper import read_community
from baldwhisper_mlx.checkpoint.padding_reader import read_padding
from baldwhisper_mlx.checkpoint.tensor_header import read_tensor_header
from baldwhisper_mlx.checkpoint.tensors import check_tensors, expected_tensors
from baldwhisper_mlx.checkpoint.weights import check_weights
from baldwhisper_mlx.config import (
    CONFIG_FILE,
    PADDING_FILE,
    VOCABULARY_FILE,
    WEIGHTS_FILE,
    Dtype,
    ModelConfig,
)
from baldwhisper_mlx.decoding.decoder import Decoder
from baldwhisper_mlx.decoding.logit_rules import Vocabulary
from baldwhisper_mlx.model.padding import Padding
from baldwhisper_mlx.model.quantize import dequantize, quantize_model
from baldwhisper_mlx.model.whisper import Whisper
from baldwhisper_mlx.ops import blas
from baldwhisper_mlx.text.tokenizer import Tokenizer, read_ranks

RunContext = Literal["full", "padded"]
"""How many positions the encoder computes for a clip: 30 s, or the clip's own before constants."""
CACHE_LIMIT = 512 * 2**20
"""Bytes of freed buffers that MLX may keep; without a limit they grow with every new shape."""


@dataclass(frozen=True)
class LoadedModel:
    """A checkpoint in memory.

    `decoder` holds the caches, which are reused from window to window and file to file.
    """

    model: Whisper
    config: ModelConfig
    tokenizer: Tokenizer
    decoder: Decoder
    path: Path


def load_model(
    path_or_hub_id: str | Path | None = None,
    *,
    revision: str | None = None,
    dtype: Dtype | None = None,
    audio_context: RunContext | None = None,
) -> LoadedModel:
    """Loads an exported model, or one of mlx-community's.

    Args:
        path_or_hub_id: a folder, or a Hugging Face Hub id such as "owner/model". For an id the
            local cache is tried first, without any network call. By default the English
            model that comes with the package.
        revision: branch, tag or commit of a Hub id.
        dtype: of the weights in memory; default the checkpoint's on a GPU and float32 on a
            CPU, where MLX multiplies 16-bit numbers many times slower.
        audio_context: "padded" encodes the clip alone, with constants for the rest of 30 s;
            "full" encodes 30 s, as OpenAI's code does. Default: "padded" if the folder has the
            constants (`padding.safetensors`), else what the checkpoint was trained for.

    Raises:
        ValueError: files are missing, damaged or of another format; the message names them.
        FileNotFoundError: no such folder, and not a Hub id either.

    Example:
        >>> load_model("models/whisper-base").config.n_text_layer
        6
    """
    folder = find_model(path_or_hub_id, revision)
    if is_community(folder):
        config, weights, community = read_community(folder)
        source, ranks, vocabulary_file = community.weights, community.ranks, community.vocabulary
    else:
        check_files(folder)
        config = ModelConfig.from_file(folder / CONFIG_FILE)
        source = folder / WEIGHTS_FILE
        check_tensors(str(source), expected_tensors(config), read_tensor_header(source))
        vocabulary_file = folder / VOCABULARY_FILE
        weights, ranks = read_weights(source), read_ranks(vocabulary_file)
    tokenizer = Tokenizer(ranks, config, str(vocabulary_file))
    if mx.default_device().type == mx.DeviceType.cpu:
        dtype = dtype or "float32"
        if advice := blas.hint():
            warnings.warn(advice, stacklevel=2)
    mx.set_cache_limit(CACHE_LIMIT)
    model = build_model(weights, config, str(source), dtype)
    model.padding = _padding_for(folder, model, audio_context)
    vocabulary = Vocabulary(
        n_vocab=config.n_vocab,
        eot=tokenizer.eot,
        sot=tokenizer.sot,
        no_speech=tokenizer.no_speech,
        no_timestamps=tokenizer.no_timestamps,
        timestamp_begin=tokenizer.timestamp_begin,
        suppress=tokenizer.suppressed_tokens,
        suppress_first=tokenizer.blank_tokens,
    )
    return LoadedModel(model, config, tokenizer, Decoder(model, vocabulary), folder)


def _padding_for(folder: Path, model: Whisper, context: RunContext | None) -> Padding | None:
    """The constants of a folder, if the audio context asks for them."""
    path = folder / PADDING_FILE
    if context not in (None, *get_args(RunContext)):
        raise ValueError(f"audio_context must be full or padded, not {context!r}")
    trained_for = model.config.audio_context
    if context is not None and trained_for != "full":
        raise ValueError(
            f"{folder}: trained for a {trained_for} audio context, and runs in that one only; "
            f"audio_context {context!r} is for checkpoints trained on 30 s"
        )
    if context == "full" or (context is None and not os.path.lexists(path)):
        return None
    if not os.path.lexists(path):
        raise ValueError(
            f"{folder}: a padded audio context needs {PADDING_FILE}; make it with "
            "`baldwhisper-convert export ... --calibration FOLDER`"
        )
    return read_padding(path, model)


def read_weights(path: Path) -> dict[str, mx.array]:
    """Reads a safetensors file, lazily.

    Raises:
        ValueError: a damaged file.
    """
    read_tensor_header(path)  # MLX trusts the header, so truncation has to be detected before
    try:
        return cast(dict[str, mx.array], mx.load(str(path)))
    except RuntimeError as error:
        raise ValueError(f"{path}: damaged ({error})") from None


def build_model(
    weights: dict[str, mx.array],
    config: ModelConfig,
    source: str,
    dtype: str | None = None,
    *,
    keep_quantized: bool | None = None,
) -> Whisper:
    """Builds the model a config describes and fills it.

    Args:
        weights: tensors by name; emptied meanwhile, so that no tensor is in memory twice.
        config: says which tensors `weights` must have; others are an error.
        source: file or folder they come from, for errors.
        dtype: of the floating-point tensors in memory; None keeps the stored one.
        keep_quantized: use quantized matrices as they are stored, instead of expanding them.
            Default: on a GPU, where they are faster; not on a CPU, where MLX has no fast
            product for them.

    Raises:
        ValueError: tensors are missing, unexpected, of another shape or type, or hold an index
            that is out of range.
    """
    check_weights(weights, config, source)
    model = Whisper(config)
    if config.quantization is not None:
        quantize_model(model, config.quantization)
    on_cpu = mx.default_device().type == mx.DeviceType.cpu
    keep = not on_cpu if keep_quantized is None else keep_quantized
    if config.quantization is not None and not keep:
        model = Whisper(config)
        dequantize(weights, config.quantization)
        dtype = dtype or config.dtype
    target = getattr(mx, dtype) if dtype else None
    turn = on_cpu and (config.quantization is None or not keep)
    for name in list(weights):
        value = weights.pop(name)
        if target is not None and mx.issubdtype(value.dtype, mx.floating):
            value = value.astype(target)
        wide = value.ndim == 2 and value.shape[0] >= value.shape[1]
        if turn and wide and not name.endswith("positional_embedding"):
            # BLAS multiplies one row by a matrix twice as fast if its longer side, here that of
            # the outputs, is contiguous. The array keeps its shape (docs/log.md).
            value = mx.contiguous(value.T).T
        model.load_weights([(name, value)], strict=False)
        mx.eval(value)
    model.eval()
    return model
