"""Writes a model as a folder that mlx-whisper loads."""

from __future__ import annotations

import json
from pathlib import Path

import mlx.core as mx

from baldwhisper_mlx.checkpoint.load import read_weights
from baldwhisper_mlx.checkpoint.mlx_whisper import is_community, read_community
from baldwhisper_mlx.config import CONFIG_FILE, WEIGHTS_FILE, ModelConfig
from baldwhisper_mlx.model.positions import sinusoids

_PARTS = {"qkv": ("query", "key", "value"), "kv": ("key", "value")}
_POSITIONS = "encoder.positional_embedding"


def best_dtype() -> mx.Dtype:
    """What mlx-whisper runs fastest in: its default on a GPU, float32 on a CPU, as we do."""
    gpu = mx.default_device().type == mx.DeviceType.gpu
    return mx.float16 if gpu else mx.float32


def write_folder(source: Path, target: Path) -> Path:
    """Makes a model readable for mlx-whisper, in the dtype it runs fastest in.

    mlx-whisper keeps weights in the type they are stored in and converts them at every use.

    Args:
        source: an exported model or one of mlx-community's, dense and unquantized.
        target: the folder to make.

    Returns:
        `target`.

    Raises:
        ValueError: a model that mlx-whisper has no form for; the message says why.
    """
    # A community folder is read like ours, so that both are written alike.
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
    positions = weights.pop(_POSITIONS)
    if not mx.allclose(positions, mx.array(sinusoids(*positions.shape)), atol=1e-2).item():
        raise ValueError(f"{source}: trained encoder positions, which mlx-whisper cannot read")
    target.mkdir(parents=True, exist_ok=True)
    split: dict[str, mx.array] = {}
    for name, value in weights.items():
        split |= _split(name, value.astype(best_dtype()))
    mx.save_safetensors(str(target / "weights.safetensors"), split)
    # OpenAI's ten dimensions, which ModelConfig has first; positions have no weight here.
    raw = config.to_dict()
    dims = {key: value for key, value in raw.items() if key.startswith("n_")}
    text = json.dumps(dims | {"model_type": "whisper"}, indent=1)
    (target / CONFIG_FILE).write_text(text, encoding="utf-8")
    return target


def _split(name: str, value: mx.array) -> dict[str, mx.array]:
    """A tensor under mlx-whisper's names, which keep query, key and value apart."""
    prefix, _, leaf = name.rpartition(".")
    base, _, fused = prefix.rpartition(".")
    if fused not in _PARTS:
        return {name: value}
    parts = _PARTS[fused]
    found = dict(zip(parts, mx.split(value, len(parts)), strict=True))
    if leaf == "bias":
        del found["key"]  # Whisper's keys have none
    return {f"{base}.{part}.{leaf}": piece for part, piece in found.items()}
