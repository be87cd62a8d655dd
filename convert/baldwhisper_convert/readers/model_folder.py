"""Reads a model folder that export wrote, as canonical weights: the exact inverse of export.

Stages store every intermediate model as such a float32 folder, so names, layouts and types are
converted back with the tables that wrote them, without loss.
"""

from __future__ import annotations

from pathlib import Path

import torch

from baldwhisper_convert.checkpoint.key_maps import MLX_EXPORT, listed, rename
from baldwhisper_convert.checkpoint.state import (
    CONVOLUTIONS,
    EMBEDDING,
    Dimensions,
    EmbeddingForm,
    State,
    canonical_shapes,
    check_state,
    split_fused,
)
from baldwhisper_convert.checkpoint.vocabulary import Vocabulary, check_merges
from baldwhisper_convert.readers.formats import Weights
from baldwhisper_convert.readers.sidecars import stated_in_card
from baldwhisper_convert.readers.weight_files import WeightFiles, load_tensors
from baldwhisper_mlx.config import (
    CONFIG_FILE,
    MODEL_TYPE,
    VOCABULARY_FILE,
    WEIGHTS_FILE,
    ModelConfig,
)
from baldwhisper_mlx.files import peek_json
from baldwhisper_mlx.text.tokenizer import read_ranks

_CANONICAL = {new: old for old, new in MLX_EXPORT.items() if new is not None}


def is_model_folder(folder: Path) -> bool:
    """Whether `config.json` says that this is a model folder of baldwhisper-mlx."""
    return peek_json(folder / CONFIG_FILE).get("model_type") == MODEL_TYPE


def read_model_folder(folder: Path) -> Weights:
    """Reads an exported model, with its vocabulary.

    Tensors keep the type they are stored in; `dense_ids` become int64.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file is damaged or contradicts `config.json`, or the model is quantized.
    """
    config = ModelConfig.from_file(folder / CONFIG_FILE)
    if config.quantization is not None:
        raise ValueError(
            f"{folder}: quantized, which cannot be undone; read the model it was exported from"
        )
    weights, ranks = folder / WEIGHTS_FILE, folder / VOCABULARY_FILE
    for path in (weights, ranks):
        if not path.is_file():
            raise FileNotFoundError(f"{path}: missing")
    return Weights(
        dims=_dimensions(config),
        state=_state(weights, config),
        alignment_heads=config.alignment_heads or None,
        is_multilingual=config.is_multilingual,
        languages=config.languages,
        suppress_tokens=config.suppress_tokens,
        format=MODEL_TYPE,
        licence=stated_in_card(folder, "license"),
        base_model=stated_in_card(folder, "base_model"),
        vocabulary=_vocabulary(ranks, config),
        audio_context=config.audio_context,
        audio_context_margin=config.audio_context_margin,
    )


def _dimensions(config: ModelConfig) -> Dimensions:
    return Dimensions(**{name: value for name, value in vars(config).items() if name[:2] == "n_"})


def _state(path: Path, config: ModelConfig) -> State:
    """The file's tensors in canonical names and layouts, checked against the config."""
    source = str(path)
    tensors = load_tensors(WeightFiles(path.name, "safetensors"), path.parent)
    stored = getattr(torch, config.dtype)
    wrong = [
        f"{name} ({tensor.dtype})"
        for name, tensor in tensors.items()
        if tensor.dtype != (torch.int32 if name == f"{EMBEDDING}.dense_ids" else stored)
    ]
    if wrong:
        raise ValueError(f"{source}: not stored as {config.dtype}: {listed(wrong)}")
    state: State = {}
    for name, new in rename(tensors, _CANONICAL, source).items():
        if new is None:
            continue
        tensor = tensors.pop(name)
        if new in CONVOLUTIONS and tensor.ndim == 3:
            tensor = tensor.permute(0, 2, 1).contiguous()
        state[new] = tensor if tensor.is_floating_point() else tensor.long()
    state = split_fused(state, source)
    form = EmbeddingForm(
        rank=config.embedding_rank,
        projections=config.embedding_projections,
        mean=config.embedding_mean,
        dense_rows=config.embedding_dense_rows,
    )
    check_state(state, canonical_shapes(_dimensions(config), form), source)
    # Chunks of a fused projection are views of one tensor; a stage must be able to change each.
    return {name: tensor.clone() for name, tensor in state.items()}


def _vocabulary(path: Path, config: ModelConfig) -> Vocabulary:
    ranks = read_ranks(path)
    try:
        check_merges(ranks, None)
        return Vocabulary(ranks, dict(config.special_tokens), config.timestamp_begin)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
