"""Writes a checkpoint as a model folder for the runtime, and verifies that it runs.

The folder is built under a temporary name, loaded with the runtime and run once, and then renamed.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import get_args

import torch

from baldwhisper_convert.checkpoint.checkpoint import Checkpoint
from baldwhisper_convert.checkpoint.key_maps import MLX_EXPORT, rename
from baldwhisper_convert.checkpoint.state import (
    CONVOLUTIONS,
    EMBEDDING,
    State,
    converted,
    fuse,
)
from baldwhisper_convert.export.destination import check_destination, save_tensors
from baldwhisper_convert.export.model_card import MODEL_CARD_FILE, model_card
from baldwhisper_convert.export.quantize import QuantizeOptions, quantized
from baldwhisper_mlx.config import (
    CONFIG_FILE,
    CONTROL_TOKENS,
    VOCABULARY_FILE,
    WEIGHTS_FILE,
    AudioContext,
    Dtype,
    ModelConfig,
)
from baldwhisper_mlx.files import atomic_folder

START_OF_TRANSCRIPT = CONTROL_TOKENS[1]


def export_mlx(
    checkpoint: Checkpoint,
    destination: str | Path,
    *,
    dtype: Dtype = "float16",
    audio_context: AudioContext | None = None,
    quantize: QuantizeOptions | None = None,
    force: bool = False,
) -> Path:
    """Exports a checkpoint to a folder that `baldwhisper_mlx.load_model` reads.

    Args:
        checkpoint: the model, dense or with a factorized embedding.
        destination: folder to make; its parent is made too if it is missing.
        dtype: type the weights are stored in.
        audio_context: audio context that the model was trained for; by default the
            checkpoint's.
        quantize: how to quantize the matrices; None stores them in `dtype`.
        force: replace an existing exported model (or empty folder).

    Returns:
        The resolved path of the folder.

    Raises:
        FileExistsError: `destination` exists and `force` is not set, or it is not something
            that an export would have made.
        ValueError: a weight does not fit `dtype`, `quantize` names no matrix of the model, or
            the exported model does not load or run.

    Example:
        >>> export_mlx(read_checkpoint("openai/whisper-base"), "models/base")  # doctest: +SKIP
    """
    path = Path(destination).expanduser().resolve()
    check_destination(path, checkpoint.source, force=force)
    config = checkpoint.model_config(dtype=dtype, audio_context=audio_context)
    # Quantized from the source's values, not from their 16-bit roundings.
    stored = dtype if quantize is None else "float32"
    tensors = mlx_tensors(checkpoint.state, stored, checkpoint.source)
    if quantize is not None:
        config = dataclasses.replace(config, quantization=quantize.plan(tensors))
    if config.quantization is not None:
        tensors = quantized(tensors, config.quantization, dtype, checkpoint.source)
    with atomic_folder(path) as folder:
        _write(folder, config, tensors, checkpoint, path.name)
        _verify_export(folder)
    return path


def mlx_tensors(state: State, dtype: Dtype, source: str) -> State:
    """Canonical state to the exported folder's names, layouts and type.

    Args:
        state: canonical tensors.
        dtype: target type; `dense_ids` become int32 instead.
        source: where the state comes from, for errors.

    Returns:
        Contiguous tensors: attention projections fused, convolutions (out, kernel, in).

    Raises:
        ValueError: a finite value becomes infinite in `dtype`.
    """
    if dtype not in get_args(Dtype):
        raise ValueError(f"dtype {dtype!r} is none of {', '.join(get_args(Dtype))}")
    fused = fuse(state)
    tensors: State = {}
    for name, new in rename(fused, MLX_EXPORT, source).items():
        if new is None:
            continue
        tensor = fused.pop(name)
        if name in CONVOLUTIONS:
            tensor = tensor.permute(0, 2, 1)
        if name == f"{EMBEDDING}.dense_ids":
            tensors[new] = tensor.to(torch.int32).contiguous()
        else:
            tensors[new] = converted(tensor, dtype, f"{source}: {name}")
    return tensors


def _write(
    folder: Path, config: ModelConfig, tensors: State, checkpoint: Checkpoint, name: str
) -> None:
    text = json.dumps(config.to_dict(), indent=2) + "\n"
    (folder / CONFIG_FILE).write_text(text, encoding="utf-8")
    save_tensors(tensors, folder / WEIGHTS_FILE, "mlx")
    (folder / VOCABULARY_FILE).write_bytes(checkpoint.vocabulary.rank_file())
    sizes = {key: tensor.nbytes for key, tensor in tensors.items()}
    card = model_card(config, checkpoint, name, sizes)
    (folder / MODEL_CARD_FILE).write_text(card, encoding="utf-8")


def _verify_export(folder: Path) -> None:
    """Loads the folder with the runtime and runs it on 30 s of zeros and one token.

    Raises:
        ValueError: it does not load, or its logits are not finite or of the wrong shape.
    """
    # Imported here, because all other modules of this package work without MLX.
    import mlx.core as mx

    from baldwhisper_mlx.checkpoint.load import load_model

    loaded = load_model(folder)
    model, config = loaded.model, loaded.config
    cache = model.make_cache()
    frames = 2 * config.n_audio_ctx
    model.encode(mx.zeros((1, frames, config.n_mels)), [frames], cache)
    tokens = mx.array([[config.special_tokens[START_OF_TRANSCRIPT]]])
    logits = model.logits(model.decoder(tokens, cache))
    if logits.shape != (1, 1, config.n_vocab):
        raise ValueError(f"the exported model gives logits of shape {logits.shape}")
    if not bool(mx.isfinite(logits).all().item()):
        raise ValueError(
            f"the exported model's logits are not finite in {config.dtype}; export with "
            "--dtype float32 or bfloat16"
        )
