"""Quantizes the matrices of an exported model, each with its own number of bits.

MLX's affine quantization, so the stored integers are those that the runtime multiplies with.
Convolutions, positions, norms and biases stay in floating point: they are small, or no matrix
product uses them.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from baldwhisper_convert.checkpoint.state import EMBEDDING, State, converted
from baldwhisper_mlx.config import Dtype
from baldwhisper_mlx.quantization_config import GROUP_SIZES, LEAVES, Grouping, Quantization

_FACTORS = ("factors", "input_projection", "output_projection", "dense_rows")


@dataclass(frozen=True, kw_only=True)
class QuantizeOptions:
    """What to quantize, in the command line's terms.

    Raises:
        ValueError: bits or a group size that MLX does not support.
    """

    bits: int
    """Bits of all matrices that neither `embedding` nor `overrides` applies to."""
    group_size: int = 64
    """Numbers that share a scale. Where it does not divide the rows, the largest smaller size
    that does is used."""
    embedding: int | Literal["same"] | None = "same"
    """Bits of the token embedding's matrices; None leaves them unquantized, "same" is `bits`."""
    overrides: tuple[tuple[str, int | None], ...] = ()
    """Patterns of matrix paths (fnmatch) with their bits; the last match applies."""

    def __post_init__(self) -> None:
        for bits in (self.bits, self.embedding, *(bits for _, bits in self.overrides)):
            if bits is not None and bits != "same":
                Grouping(bits=bits, group_size=self.group_size)  # raises if unsupported

    def plan(self, tensors: Mapping[str, torch.Tensor]) -> Quantization:
        """The quantization of every matrix of a model.

        A matrix whose rows no group size divides stays in floating point.

        Args:
            tensors: an unquantized model under the exported folder's names.

        Raises:
            ValueError: a pattern that matches no matrix.
        """
        paths = dict(quantizable(tensors))
        for pattern, _ in self.overrides:
            if not fnmatch.filter(paths, pattern):
                raise ValueError(
                    f"{pattern!r} matches no matrix of this model; paths are, for example, "
                    f"{', '.join(list(paths)[-4:])}"
                )
        default = Grouping(bits=self.bits, group_size=self.group_size)
        wanted = {path: self._grouping(path, tensors[name]) for path, name in paths.items()}
        return Quantization(
            bits=self.bits,
            group_size=self.group_size,
            overrides={path: group for path, group in wanted.items() if group != default},
        )

    def _grouping(self, path: str, matrix: torch.Tensor) -> Grouping | None:
        bits: int | None = self.bits
        if path.startswith(EMBEDDING) and not isinstance(self.embedding, str):
            bits = self.embedding
        for pattern, pattern_bits in self.overrides:
            if fnmatch.fnmatchcase(path, pattern):
                bits = pattern_bits
        sizes = [size for size in GROUP_SIZES if size <= self.group_size]
        fitting = [size for size in sizes if matrix.shape[1] % size == 0]
        if bits is None or not fitting:
            return None
        return Grouping(bits=bits, group_size=max(fitting))


def quantizable(tensors: Mapping[str, torch.Tensor]) -> Iterator[tuple[str, str]]:
    """Path and tensor name of every matrix that the runtime can use quantized."""
    for name, tensor in tensors.items():
        if tensor.ndim != 2:
            continue
        if name in [f"{EMBEDDING}.{factor}" for factor in _FACTORS]:
            yield name, name
        elif name.endswith(".weight"):
            yield name.removesuffix(".weight"), name


def quantized(tensors: State, quantization: Quantization, dtype: Dtype, source: str) -> State:
    """Replaces matrices with their packed integers, scales and biases.

    Args:
        tensors: an unquantized model under the exported folder's names, in the precision to
            quantize from.
        quantization: from `QuantizeOptions.plan`.
        dtype: type of scales, biases and all tensors that are not quantized.
        source: where the tensors come from, for errors.

    Returns:
        All tensors; of a matrix `X.weight`, or the factor `X`, the three `X.weight` (uint32),
        `X.scales` and `X.biases`.

    Raises:
        ValueError: a finite value becomes infinite in `dtype`.
    """
    # Imported here, because all other modules of this package work without MLX.
    import mlx.core as mx

    result = dict(tensors)
    for path, name in quantizable(tensors):
        grouping = quantization.of(path)
        if grouping is None:
            continue
        matrix = mx.array(result.pop(name).float().numpy())
        parts = mx.quantize(
            matrix, group_size=grouping.group_size, bits=grouping.bits, stream=mx.cpu
        )
        for leaf, part in zip(LEAVES, parts, strict=True):
            # A copy, because MLX frees the memory that its arrays lend to numpy.
            result[f"{path}{leaf}"] = torch.from_numpy(np.array(part, copy=True))
    return {
        name: converted(tensor, dtype, f"{source}: {name}")
        if tensor.is_floating_point()
        else tensor
        for name, tensor in result.items()
    }
