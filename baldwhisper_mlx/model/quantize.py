"""Applies a quantization to a model's matrices, or undoes it in the weights.

On a GPU quantized matrices are multiplied as they are. On a CPU they are expanded when the
model is loaded: MLX has no fast product for them there (docs/log.md).
"""

from __future__ import annotations

from collections.abc import Iterator

import mlx.core as mx
from mlx import nn

from baldwhisper_mlx.model.embedding import MATRICES, FactorizedEmbedding
from baldwhisper_mlx.ops import cpu_weights
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


def take_expanded(
    weights: dict[str, mx.array], quantization: Quantization
) -> Iterator[tuple[str, mx.array]]:
    """Takes the quantized matrices out of the weights and expands them, the largest first.

    In float32: a 16-bit product of scale and integer would be rounded once more.

    Args:
        weights: all tensors of a quantized model by name; those of quantized matrices are removed.
        quantization: from its config.

    Yields:
        The unquantized name of a matrix, and its values as `cpu_weights.expand` gives them.
    """
    paths = [matrix_of(name) for name in weights if name.endswith(".scales")]
    for path in sorted(paths, key=lambda path: -weights[f"{path}{LEAVES[0]}"].nbytes):
        grouping = quantization.of(path)
        if grouping is None:
            continue
        factor = path.removeprefix(f"{_EMBEDDING}.") in MATRICES
        yield (
            path if factor else f"{path}.weight",
            cpu_weights.expand(
                *(weights.pop(f"{path}{leaf}") for leaf in LEAVES),
                bits=grouping.bits,
                group_size=grouping.group_size,
            ),
        )
