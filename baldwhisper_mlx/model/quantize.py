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
    """Replaces the matrices that the config quantizes by empty quantized ones, to be loaded.

    Args:
        model: a `Whisper`, unquantized.
        quantization: from its config.

    Raises:
        ValueError: rows that do not divide into groups, or an override of no matrix.
    """
    unused = set(quantization.overrides)

    def settings(path: str, columns: int) -> dict[str, int] | None:
        grouping = quantization.of(path)
        unused.discard(path)
        if grouping is None:
            return None
        if columns % grouping.group_size:
            raise ValueError(
                f"config: quantization of {path}: its rows of {columns} numbers do not divide "
                f"into groups of {grouping.group_size}"
            )
        return {"bits": grouping.bits, "group_size": grouping.group_size}

    def predicate(path: str, module: nn.Module) -> bool | dict[str, int]:
        if isinstance(module, nn.Linear | nn.Embedding):
            return settings(path, module.weight.shape[1]) or False
        return False

    nn.quantize(model, class_predicate=predicate)
    embedding = model.decoder.token_embedding
    if isinstance(embedding, FactorizedEmbedding):
        for name in MATRICES:
            if name in embedding:
                grouping = settings(f"{_EMBEDDING}.{name}", embedding[name].shape[1])
                if grouping is not None:
                    embedding.quantize(name, **grouping)
    if unused:
        raise ValueError(
            "config: quantization.overrides names no matrix of this model: "
            + ", ".join(sorted(unused))
        )


def dequantize(weights: dict[str, mx.array], quantization: Quantization) -> None:
    """Replaces every quantized matrix by its floating-point values, under its unquantized name.

    Lazily, and in float32: a 16-bit product of scale and integer would be rounded once more.

    Args:
        weights: all tensors of a quantized model by name; changed in place.
        quantization: from its config.
    """
    for path in [matrix_of(name) for name in weights if name.endswith(".scales")]:
        grouping = quantization.of(path)
        if grouping is None:
            continue
        packed, scales, biases = (weights.pop(f"{path}{leaf}") for leaf in LEAVES)
        factor = path.removeprefix(f"{_EMBEDDING}.") in MATRICES
        weights[path if factor else f"{path}.weight"] = mx.dequantize(
            packed,
            scales.astype(mx.float32),
            biases.astype(mx.float32),
            group_size=grouping.group_size,
            bits=grouping.bits,
        )
