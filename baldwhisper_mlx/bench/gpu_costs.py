"""What a model asks of a GPU, counted without one, and the time that Apple's M1 needs for it.

Bytes are those of the weights as they are stored, because a GPU uses quantized matrices as they are
and computes in 16 bits. The times are estimates: the larger of operations and bytes over the rates
that Apple has published for the first M1. No program reaches them, and small kernels least.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from baldwhisper_mlx.bench.roofline import NOT_STREAMED, cache_bytes, encode_flops
from baldwhisper_mlx.checkpoint.load import LoadedModel
from baldwhisper_mlx.checkpoint.tensor_header import read_tensor_header
from baldwhisper_mlx.config import WEIGHTS_FILE, ModelConfig, bucketed_positions
from baldwhisper_mlx.model.calibration import STRIDE, TAIL

M1_BYTES_PER_SECOND = 68.25e9
"""Of its memory: LPDDR4X at 4266 MT/s, 128 bits wide."""
M1_FLOPS_PER_SECOND = 2.6e12
"""Of its GPU with 8 cores, in float32."""
SECONDS = (3.0, 10.0, 30.0)
_HALF = 2
_TEXT = 100


def gpu_costs(loaded: LoadedModel, *, primitives: int, syncs: float) -> dict[str, Any] | None:
    """Costs of a decode step and of encodings.

    Args:
        loaded: the model.
        primitives: of a decode step, as a GPU runs them.
        syncs: times that the host waits for a step.

    Returns:
        `step` and `encode`, lists of rows with `label`, `bytes`, `flops` and `m1_seconds`; a step
        also has `primitives` and `syncs`. None for a model that is not in our own format.
    """
    path = loaded.path / WEIGHTS_FILE
    config = loaded.config
    sizes = _stored_bytes(loaded) if path.is_file() else {}
    if "encoder.conv1.weight" not in sizes:
        return None
    decoder = sum(
        size
        for name, size in sizes.items()
        if name.startswith("decoder.") and not any(part in name for part in NOT_STREAMED)
    )
    encoder = sum(size for name, size in sizes.items() if name.startswith("encoder."))
    per_layer = sum(size for name, size in sizes.items() if name.startswith("encoder.blocks.0."))
    whole = config.audio_context  # that of 30 s; shorter clips have a short one
    short = "padded" if whole == "full" else whole
    step = []
    for seconds, context in ((30.0, whole), (10.0, short), (3.0, short)):
        positions, tail = _positions(config, seconds, context)[0], TAIL * (context == "padded")
        caches = cache_bytes(config, itemsize=_HALF, audio=positions + tail, text=_TEXT)
        row = _row(f"{seconds:g} s, {context} context", decoder + caches, 0)
        step.append(row | {"primitives": primitives, "syncs": syncs})
    encode = []
    for seconds in SECONDS:
        for context in dict.fromkeys((whole, short)):
            positions, constants = _positions(config, seconds, context)
            if context == "padded" and positions == config.n_audio_ctx:
                continue
            tail = TAIL if constants else 0
            flops = encode_flops(config, positions, constants, tail)
            states = cache_bytes(config, itemsize=_HALF, audio=positions + tail, text=0)
            encode.append(_row(f"{seconds:g} s, {context} context", encoder + states, flops))
    for layers in range(config.n_audio_layer - 1, 1, -1):
        lighter = replace(config, n_audio_layer=layers)
        flops = encode_flops(lighter, config.n_audio_ctx)
        left_out = (config.n_audio_layer - layers) * per_layer
        states = cache_bytes(config, itemsize=_HALF, audio=config.n_audio_ctx, text=0)
        label = f"30 s, {whole} context, {layers} encoder layers"
        encode.append(_row(label, encoder - left_out + states, flops))
    return {"step": step, "encode": encode}


def _stored_bytes(loaded: LoadedModel) -> dict[str, int]:
    header = read_tensor_header(loaded.path / WEIGHTS_FILE)
    return {name: tensor.nbytes for name, tensor in header.items()}


def _positions(config: ModelConfig, seconds: float, context: str) -> tuple[int, int]:
    """Encoder positions of a clip, and constant keys behind them."""
    frames = round(seconds * 100)
    if context != "padded":
        return config.audio_positions(frames), 0
    positions = bucketed_positions(frames, config.audio_context_margin, config.n_audio_ctx)
    return positions, math.ceil(config.n_audio_ctx / STRIDE) - math.ceil(positions / STRIDE)


def _row(label: str, n_bytes: float, flops: float) -> dict[str, Any]:
    seconds = max(n_bytes / M1_BYTES_PER_SECOND, flops / M1_FLOPS_PER_SECOND)
    return {"label": label, "bytes": round(n_bytes), "flops": round(flops), "m1_seconds": seconds}
