"""Describes a model folder from its config and the header of its weights.

`describe_model` gives lines to print, `stored_facts` values to compute with. No tensor is loaded,
so it takes milliseconds and works without MLX.
"""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

from baldwhisper_mlx.checkpoint.files import check_files
from baldwhisper_mlx.checkpoint.kind import is_community, kind_of
from baldwhisper_mlx.checkpoint.tensor_header import (
    Header,
    read_tensor_header,
    read_tensor_metadata,
)
from baldwhisper_mlx.checkpoint.tensors import check_tensors, expected_tensors
from baldwhisper_mlx.config import (
    CONFIG_FILE,
    CONTROL_TOKENS,
    FORMAT_VERSION,
    PADDING_FILE,
    TIME_PRECISION,
    WEIGHTS_FILE,
    ModelConfig,
)
from baldwhisper_mlx.quantization_config import matrix_of, storage
from baldwhisper_mlx.terminal import printable


def describe_model(folder: str | Path) -> dict[str, str]:
    """Describes a model folder in a few labelled lines.

    Args:
        folder: an exported model, or one of mlx-community's.

    Returns:
        Label to text, in the order in which they are printed.

    Raises:
        ValueError: a file is missing or damaged; the message names it.

    Example:
        >>> describe_model("models/whisper-base")["embedding"]
        'dense, 51865 x 512'
    """
    folder = Path(folder)
    config, header = _read(folder)
    sizes = {name: info.nbytes for name, info in header.items()}
    stored = storage(sizes, config.dtype, config.quantization)
    size = sum(path.stat().st_size for path in folder.iterdir() if path.is_file())
    return {
        "model": printable(str(folder)),
        "format": "mlx-whisper" if is_community(folder) else f"version {FORMAT_VERSION}",
        "encoder": (
            f"{config.n_audio_layer} layers, width {config.n_audio_state}, "
            f"{config.n_audio_head} heads, {config.n_mels} mel bins, "
            f"{config.n_audio_ctx} positions"
        ),
        "decoder": (
            f"{config.n_text_layer} layers, width {config.n_text_state}, "
            f"{config.n_text_head} heads, {config.n_text_ctx} positions"
        ),
        "vocabulary": f"{config.n_vocab} tokens, " + _describe_languages(config),
        "embedding": _describe_embedding(config),
        "context": _describe_context(config, folder / PADDING_FILE),
        "parameters": f"{count_parameters(header, config) / 1e6:.1f} M",
        "dtype": config.dtype,
        "weights": "; ".join(f"{part} {text}" for part, text in stored.items()),
        "size": f"{size / 1e6:.1f} MB on disk",
    }


def stored_facts(folder: Path) -> dict[str, Any]:
    """Size, precision and parameters of a model folder, for reports.

    Args:
        folder: an exported model, or one of mlx-community's.

    Returns:
        `disk_bytes`, `stored_dtype` and `quantization`; for an exported model also `parameters`
        (their number), and the lines `encoder`, `decoder`, `embedding` and `context` of
        `describe_model`. For one of mlx-community's, dtype and quantization are None.

    Raises:
        ValueError: a file of an exported model is damaged; the message names it.
    """
    files = [path for path in folder.iterdir() if path.is_file()]
    facts: dict[str, Any] = {
        "disk_bytes": sum(path.stat().st_size for path in files),
        "stored_dtype": None,
        "quantization": None,
    }
    if kind_of(folder) != "baldwhisper":
        return facts
    config, header = _read(folder)
    lines = describe_model(folder)
    facts["stored_dtype"] = config.dtype
    facts["quantization"] = None if config.quantization is None else lines["weights"]
    facts["parameters"] = count_parameters(header, config)
    return facts | {key: lines[key] for key in ("encoder", "decoder", "embedding", "context")}


def _read(folder: Path) -> tuple[ModelConfig, Header]:
    """The config, and the tensors under our names, which are those that the config asks for."""
    if is_community(folder):
        # Here, because it reads a vocabulary, which an exported model's description needs not.
        from baldwhisper_mlx.checkpoint.mlx_whisper_config import read_community_config

        model = read_community_config(folder)
        return model.config, model.header
    check_files(folder)
    config = ModelConfig.from_file(folder / CONFIG_FILE)
    header = read_tensor_header(folder / WEIGHTS_FILE)
    check_tensors(str(folder / WEIGHTS_FILE), expected_tensors(config), header)
    return config, header


def count_parameters(header: Header, config: ModelConfig) -> int:
    """Number of learned parameters of a model.

    Args:
        header: from `read_tensor_header`.
        config: of the same model.
    """
    total = 0
    for name, tensor in header.items():
        if name.endswith((".scales", ".biases", ".dense_ids")):
            continue  # they describe quantized matrices and dense rows, and are not learned
        count = math.prod(tensor.shape)
        grouping = config.quantization.of(matrix_of(name)) if config.quantization else None
        if grouping is not None and tensor.dtype == "U32":
            count = count * 32 // grouping.bits  # integers are packed into words of 32 bits
        total += count
    return total


def _describe_embedding(config: ModelConfig) -> str:
    if config.embedding_rank is None:
        return f"dense, {config.n_vocab} x {config.n_text_state}"
    text = f"rank {config.embedding_rank}, {config.embedding_projections} projections"
    if config.embedding_mean:
        text += ", mean"
    if config.embedding_dense_rows:
        text += f", {config.embedding_dense_rows} dense rows"
    return text


def _describe_languages(config: ModelConfig) -> str:
    if not config.is_multilingual or config.languages == ("en",):
        return "English only"
    if config.languages is not None:
        return f"trained for {', '.join(config.languages)} only"
    return f"{len(config.special_tokens.keys() - set(CONTROL_TOKENS))} languages"


def _describe_context(config: ModelConfig, padding: Path) -> str:
    if config.audio_context == "full" and os.path.lexists(padding):
        facts = read_tensor_metadata(padding)
        try:
            clips, stride, tail = (int(facts[key]) for key in ("clips", "stride", "tail"))
        except (KeyError, ValueError):
            raise ValueError(
                f"{padding}: bad metadata: clips, stride and tail must be whole numbers"
            ) from None
        plural = "" if clips == 1 else "s"
        return f"padded (constants of {clips} clip{plural}, stride {stride}, tail {tail})"
    if config.audio_context == "full":
        return "full (always 30 s)"
    margin = config.audio_context_margin * TIME_PRECISION
    return f"{config.audio_context} (the clip and {margin:.2f} s)"
