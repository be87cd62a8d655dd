"""Writes a checkpoint as the folder the runtime reads, and proves that it runs.

The folder is built under a temporary name beside its destination, loaded with the runtime
and run once, and only then renamed: an interrupted or failing export leaves nothing behind,
and an existing model is replaced only by one that works.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import torch

from baldwhisper_convert.canonical import EMBEDDING, State, default_alignment_heads, fuse
from baldwhisper_convert.checkpoint import Checkpoint
from baldwhisper_convert.keymaps import MLX_EXPORT, rename
from baldwhisper_convert.model_card import MODEL_CARD_FILE, model_card
from baldwhisper_mlx.config import (
    CONFIG_FILE,
    CONTROL_TOKENS,
    VOCABULARY_FILE,
    WEIGHTS_FILE,
    AudioContext,
    Dtype,
    ModelConfig,
)

START_OF_TRANSCRIPT = CONTROL_TOKENS[1]

_CONVOLUTIONS = ("encoder.conv1.weight", "encoder.conv2.weight")


def export_mlx(
    checkpoint: Checkpoint,
    destination: str | Path,
    *,
    dtype: Dtype = "float16",
    audio_context: AudioContext = "full",
    force: bool = False,
) -> Path:
    """Exports a checkpoint to a folder that `baldwhisper_mlx.load_model` reads.

    Args:
        checkpoint: the model, dense or with a factorized embedding.
        destination: folder to make; its parent is made too if it is missing.
        dtype: type the weights are stored in.
        audio_context: what the model was trained for; see `ModelConfig.audio_context`.
        force: replace an existing exported model (or empty folder).

    Returns:
        The resolved path of the folder.

    Raises:
        FileExistsError: `destination` exists and `force` is not set, or it is not something
            that this function would have made.
        ValueError: a weight does not fit `dtype`, or the exported model fails its own run.

    Example:
        >>> export_mlx(read_checkpoint("openai/whisper-base"), "models/base")  # doctest: +SKIP
    """
    path = Path(destination).expanduser().resolve()
    check_destination(path, checkpoint.source, force=force)
    config = model_config(checkpoint, dtype=dtype, audio_context=audio_context)
    tensors = mlx_tensors(checkpoint.state, dtype, checkpoint.source)
    path.parent.mkdir(parents=True, exist_ok=True)
    with _replacing(path) as partial:
        _write(partial, config, tensors, checkpoint, path.name)
        _prove(partial)
    return path


def check_destination(path: Path, source: str, *, force: bool) -> None:
    """Refuses a destination that is in use, before any work is done.

    Raises:
        FileExistsError: it exists and `force` is not set; or it is a file, holds something
            else than an exported model, or holds the source.
    """
    path = path.expanduser().resolve()
    if not path.exists():
        return
    if not force:
        raise FileExistsError(f"{path}: exists already; --force replaces it")
    # Replacing means deleting, so it is limited to what an export can have made.
    if not path.is_dir() or (any(path.iterdir()) and not _is_exported(path)):
        raise FileExistsError(f"{path}: not an exported model, so --force does not replace it")
    origin = Path(source).expanduser()
    if origin.exists() and origin.resolve().is_relative_to(path):
        raise FileExistsError(f"{path}: contains the source {source}, which would be deleted")


def model_config(
    checkpoint: Checkpoint, *, dtype: Dtype = "float16", audio_context: AudioContext = "full"
) -> ModelConfig:
    """The runtime's description of a checkpoint.

    Alignment heads are the source's; where it has none, all heads of the last half of the
    decoder layers, as in openai-whisper.

    Raises:
        ValueError: dimensions that the runtime does not support; names the source.
    """
    form = checkpoint.embedding
    try:
        return ModelConfig(
            **vars(checkpoint.dims),
            special_tokens=dict(checkpoint.vocabulary.special_tokens),
            is_multilingual=checkpoint.multilingual,
            timestamp_begin=checkpoint.vocabulary.timestamp_begin,
            alignment_heads=checkpoint.alignment_heads or default_alignment_heads(checkpoint.dims),
            dtype=dtype,
            embedding_rank=form.rank,
            embedding_projections=form.projections,
            embedding_mean=form.mean,
            embedding_dense_rows=form.dense_rows,
            audio_context=audio_context,
        )
    except ValueError as error:
        raise ValueError(f"{checkpoint.source}: {error}") from None


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
    target = getattr(torch, dtype)
    fused = fuse(state)
    tensors: State = {}
    for name, new in rename(fused, MLX_EXPORT, source).items():
        if new is None:
            continue
        tensor = fused.pop(name)
        if name in _CONVOLUTIONS:
            tensor = tensor.permute(0, 2, 1)
        converted = tensor.to(torch.int32 if name == f"{EMBEDDING}.dense_ids" else target)
        if converted.is_floating_point() and not bool(torch.isfinite(converted).all()):
            largest = float(tensor.abs().max())
            raise ValueError(
                f"{source}: {name} has values up to {largest:g}, which overflow {dtype}; "
                "export with --dtype float32 or bfloat16"
            )
        tensors[new] = converted.contiguous()
    return tensors


def _write(
    folder: Path, config: ModelConfig, tensors: State, checkpoint: Checkpoint, name: str
) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    text = json.dumps(config.to_dict(), indent=2) + "\n"
    (folder / CONFIG_FILE).write_text(text, encoding="utf-8")
    weights = folder / WEIGHTS_FILE
    try:
        save_file(tensors, weights, metadata={"format": "mlx"})
    except SafetensorError as error:
        raise OSError(f"{weights}: cannot be written ({error})") from None
    # safetensors makes files that only their owner can read; a model folder gets shared.
    weights.chmod((folder / CONFIG_FILE).stat().st_mode)
    (folder / VOCABULARY_FILE).write_bytes(checkpoint.vocabulary.rank_file())
    card = model_card(config, checkpoint, name)
    (folder / MODEL_CARD_FILE).write_text(card, encoding="utf-8")


def _prove(folder: Path) -> None:
    """Loads the folder with the runtime and runs 30 s of zeros and one token through it.

    Raises:
        ValueError: the runtime refuses it, or its logits are not finite or of the wrong shape.
    """
    # Here, because everything else in this package works without MLX in the process.
    import mlx.core as mx

    from baldwhisper_mlx.load import load_model

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


@contextlib.contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """A new folder beside `path` that takes its place on success and is gone on failure."""
    # Not tempfile.mkdtemp: that makes folders only their owner can read.
    tag = secrets.token_hex(4)
    partial = path.with_name(f".{path.name}.{tag}.partial")
    backup = path.with_name(f".{path.name}.{tag}.old")
    partial.mkdir()
    try:
        yield partial
        if path.exists():
            path.rename(backup)
        try:
            partial.rename(path)
        except BaseException:
            if backup.exists():
                backup.rename(path)
            raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    if backup.exists():
        shutil.rmtree(backup)


def _is_exported(folder: Path) -> bool:
    try:
        config = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(config, dict) and config.get("model_type") == "baldwhisper"
