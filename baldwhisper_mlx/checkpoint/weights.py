"""The weights of a checkpoint: read, checked, and brought into the form in which they are used.

One after another, each dropped as soon as it has that form, so that a model takes hardly more
memory while it is loaded than afterwards.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import cast

import mlx.core as mx

from baldwhisper_mlx.checkpoint.tensor_header import Header, read_tensor_header
from baldwhisper_mlx.checkpoint.tensors import check_tensors
from baldwhisper_mlx.checkpoint.weight_checks import check_weights
from baldwhisper_mlx.config import ModelConfig
from baldwhisper_mlx.model.quantize import quantize_model, take_expanded
from baldwhisper_mlx.model.whisper import Whisper
from baldwhisper_mlx.ops import cpu_weights
from baldwhisper_mlx.quantization_config import Quantization


def read_weights(path: Path, expected: Header | None = None) -> dict[str, mx.array]:
    """Reads a safetensors file, lazily.

    Args:
        path: the file.
        expected: types and shapes that it must have; None for any.

    Raises:
        ValueError: a damaged file, or other tensors than expected.
    """
    header = read_tensor_header(path)  # which MLX trusts, so truncation has to be detected before
    if expected is not None:
        check_tensors(str(path), expected, header)
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
    expanded = config.quantization is not None and not keep
    if expanded:
        model = Whisper(config)
        dtype = dtype or config.dtype
    target = getattr(mx, dtype) if dtype else None
    lay_out = on_cpu and dtype == "float32" and (expanded or config.quantization is None)
    for name, value in _take(weights, config.quantization if expanded else None, lay_out=lay_out):
        if target is not None and mx.issubdtype(value.dtype, mx.floating):
            value = value.astype(target)
        mx.eval(value)
        model.load_weights([(name, value)], strict=False)
        del value
        mx.clear_cache()  # or the buffers that a tensor needed on its way would stay
    model.eval()
    return model


def _take(
    weights: dict[str, mx.array], expand: Quantization | None, *, lay_out: bool
) -> Iterator[tuple[str, mx.array]]:
    """Empties the weights, the largest tensors first: on their way they need memory for two."""
    if expand is not None:
        yield from take_expanded(weights, expand)
    for name in sorted(weights, key=lambda name: -weights[name].nbytes):
        value = weights.pop(name)
        if lay_out and mx.issubdtype(value.dtype, mx.floating):
            # Positions are looked up row by row, and never multiplied by.
            value = cpu_weights.to_float32(value, turn=not name.endswith("positional_embedding"))
        yield name, value
