"""Applies a quantization to a model's matrices, or undoes it in the weights.

On a GPU quantized matrices are multiplied as they are. On a CPU they are expanded when the
model is loaded: MLX has no fast product for them there (docs/log.md).
"""

from __future__ import annotations

import mlx.core as mx
from mlx import nn

from baldwhisper_mlx.model.embedding import MATRICES, FactorizedEmbedding
from baldwhisper_mlx.quantization_config import LEAVES, Quantization, matrix_of

_EMBEDDING = "decoder.token_embedding"


def quantize_model(model: nn.Module, quantization: Quantization) -> None:
    """Gives every matrix of a model the form that the config says, its values to be loaded.

    Args:
        model: a `Whisper`, unquantized.
        quantization: from its config.

    Raises:
        ValueError: rows that do not divide into groups, or an override of no matrix.
    """
    left = set(quantization.overrides)

    def settings(path: str, columns: int) -> dict[str, int] | None:
        own = quantization.of(path)
        left.discard(path)
        if own is None:
            return None
        if columns % own.group_size:
            raise ValueError(
                f"config: quantization of {path}: its rows of {columns} numbers do not divide "
                f"into groups of {own.group_size}"
            )
        return {"bits": own.bits, "group_size": own.group_size}

    def predicate(path: str, module: nn.Module) -> bool | dict[str, int]:
        if isinstance(module, nn.Linear | nn.Embedding):
            return settings(path, module.weight.shape[1]) or False
        return False

    nn.quantize(model, class_predicate=predicate)
    embedding = model.decoder.token_embedding
    if isinstance(embedding, FactorizedEmbedding):
        for name in MATRICES:
            if name in embedding:
                own = settings(f"{_EMBEDDING}.{name}", embedding[name].shape[1])
                if own is not None:
                    embedding.quantize(name, **own)
    if left:
        raise ValueError(
            "config: quantization.overrides names no matrix of this model: "
            + ", ".join(sorted(left))
        )


def dequantize(weights: dict[str, mx.array], quantization: Quantization) -> None:
    """Replaces every quantized matrix by what it stands for, under its unquantized name.

    Lazily, in float32: a 16-bit product of scale and integer would be rounded once more.

    Args:
        weights: all tensors of a quantized model by name; changed in place.
        quantization: from its config.
    """
    for path in [matrix_of(name) for name in weights if name.endswith(".scales")]:
        own = quantization.of(path)
        if own is None:
            continue
        packed, scales, biases = (weights.pop(f"{path}{leaf}") for leaf in LEAVES)
        factor = path.removeprefix(f"{_EMBEDDING}.") in MATRICES
        weights[path if factor else f"{path}.weight"] = mx.dequantize(
            packed,
            scales.astype(mx.float32),
            biases.astype(mx.float32),
            group_size=own.group_size,
            bits=own.bits,
        )
