"""Quantizes the matrices of an exported model, each as finely as it was asked for.

Affine, by MLX itself, so that what is stored is what the runtime multiplies with. Convolutions,
positions, norms and biases stay in floating point: they are small, or not multiplied with.
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
    """Of every matrix that nothing else is said about."""
    group_size: int = 64
    """Numbers that share a scale; smaller ones are taken where rows do not divide by it."""
    embedding: int | Literal["same"] | None = "same"
    """Bits of the token embedding's matrices, None to keep them as they are; "same": `bits`."""
    overrides: tuple[tuple[str, int | None], ...] = ()
    """Patterns of matrix paths, as fnmatch has them, and their bits; the last that fits holds."""

    def __post_init__(self) -> None:
        for bits in (self.bits, self.embedding, *(own for _, own in self.overrides)):
            if bits is not None and bits != "same":
                Grouping(bits=bits, group_size=self.group_size)

    def plan(self, tensors: Mapping[str, torch.Tensor]) -> Quantization:
        """Decides about every matrix of a model.

        A matrix whose rows no group size divides stays in floating point.

        Args:
            tensors: an unquantized model under the exported folder's names.

        Raises:
            ValueError: a pattern that fits no matrix.
        """
        paths = dict(quantizable(tensors))
        for pattern, _ in self.overrides:
            if not fnmatch.filter(paths, pattern):
                raise ValueError(
                    f"no matrix of this model is named like {pattern!r}; they are, for example, "
                    f"{', '.join(list(paths)[-4:])}"
                )
        default = Grouping(bits=self.bits, group_size=self.group_size)
        wanted = {path: self._grouping(path, tensors[name]) for path, name in paths.items()}
        return Quantization(
            bits=self.bits,
            group_size=self.group_size,
            overrides={path: own for path, own in wanted.items() if own != default},
        )

    def _grouping(self, path: str, matrix: torch.Tensor) -> Grouping | None:
        bits: int | None = self.bits
        if path.startswith(EMBEDDING) and not isinstance(self.embedding, str):
            bits = self.embedding
        for pattern, own in self.overrides:
            if fnmatch.fnmatchcase(path, pattern):
                bits = own
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
    """Replaces matrices by their packed integers, scales and biases.

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
    # Here, because everything else in this package works without MLX in the process.
    import mlx.core as mx

    result = dict(tensors)
    for path, name in quantizable(tensors):
        own = quantization.of(path)
        if own is None:
            continue
        matrix = mx.array(result.pop(name).float().numpy())
        parts = mx.quantize(matrix, group_size=own.group_size, bits=own.bits, stream=mx.cpu)
        for leaf, part in zip(LEAVES, parts, strict=True):
            # A copy, because MLX frees the memory that its arrays lend to numpy.
            result[f"{path}{leaf}"] = torch.from_numpy(np.array(part, copy=True))
    return {
        name: converted(tensor, dtype, f"{source}: {name}")
        if tensor.is_floating_point()
        else tensor
        for name, tensor in result.items()
    }
