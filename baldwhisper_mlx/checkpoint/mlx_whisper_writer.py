"""Writes a model as a folder that mlx-whisper loads, to compare the two runtimes.

The reverse of mlx_whisper.py: fused projections are split into query, key and value again.
"""

from __future__ import annotations

import json
from pathlib import Path

import mlx.core as mx

from baldwhisper_mlx.checkpoint.kind import is_community
from baldwhisper_mlx.checkpoint.mlx_whisper import read_community
from baldwhisper_mlx.checkpoint.weights import read_weights
from baldwhisper_mlx.config import CONFIG_FILE, WEIGHTS_FILE, ModelConfig
from baldwhisper_mlx.model.positions import sinusoids

_PARTS = {"qkv": ("query", "key", "value"), "kv": ("key", "value")}
_POSITIONS = "encoder.positional_embedding"


def write_folder(source: Path, target: Path) -> Path:
    """Writes a model in mlx-whisper's format, in the dtype that mlx-whisper runs fastest in.

    mlx-whisper keeps weights in the dtype they are stored in, and converts them at every use.

    Args:
        source: an exported model or one of mlx-community's, dense and unquantized.
        target: the folder to write; created if it does not exist.

    Returns:
        `target`.

    Raises:
        ValueError: mlx-whisper has no format for the model; the message says why.
    """
    # A folder of mlx-community is read and written again, for the dtype.
    if is_community(source):
        config, weights, _ = read_community(source)
    else:
        config = ModelConfig.from_file(source / CONFIG_FILE)
        weights = read_weights(source / WEIGHTS_FILE)
    if config.embedding_rank is not None or config.quantization is not None:
        raise ValueError(
            f"{source}: mlx-whisper needs a dense embedding and weights that are not quantized; "
            "compare the teacher as it was exported"
        )
    # mlx-whisper computes the encoder's positions, so they have to be the usual ones.
    positions = weights.pop(_POSITIONS)
    if not mx.allclose(positions, mx.array(sinusoids(*positions.shape)), atol=1e-2).item():
        raise ValueError(f"{source}: trained encoder positions, which mlx-whisper cannot read")
    target.mkdir(parents=True, exist_ok=True)
    split: dict[str, mx.array] = {}
    for name, value in weights.items():
        split |= _split(name, value.astype(best_dtype()))
    mx.save_safetensors(str(target / "weights.safetensors"), split)
    # mlx-whisper's config is OpenAI's ten dimensions, which are the fields n_* of ours.
    raw = config.to_dict()
    dims = {key: value for key, value in raw.items() if key.startswith("n_")}
    text = json.dumps(dims | {"model_type": "whisper"}, indent=1)
    (target / CONFIG_FILE).write_text(text, encoding="utf-8")
    return target


def best_dtype() -> mx.Dtype:
    """The dtype that mlx-whisper runs fastest in: float16 on a GPU, float32 on a CPU."""
    on_gpu = mx.default_device().type == mx.DeviceType.gpu
    return mx.float16 if on_gpu else mx.float32


def _split(name: str, value: mx.array) -> dict[str, mx.array]:
    """A tensor under mlx-whisper's names, a fused one as its parts."""
    prefix, _, leaf = name.rpartition(".")
    parent, _, projection = prefix.rpartition(".")
    if projection not in _PARTS:
        return {name: value}
    names = _PARTS[projection]
    parts = dict(zip(names, mx.split(value, len(names)), strict=True))
    if leaf == "bias":
        del parts["key"]  # Whisper's keys have no bias
    return {f"{parent}.{part}.{leaf}": tensor for part, tensor in parts.items()}
