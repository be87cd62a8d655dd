"""Tiny Whisper models, built in seconds, in every format that can be exported.

Widths and vocabulary are small and the weights random; everything else is as in a real model:
30 s of audio, 448 text positions, 99 languages, 1501 timestamps.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from baldwhisper_convert.checkpoint.checkpoint import Checkpoint
from baldwhisper_convert.checkpoint.state import Dimensions, canonical_shapes
from baldwhisper_mlx.config import CONTROL_TOKENS
from baldwhisper_mlx.model.positions import sinusoids
from tests.support.tiny_vocabulary import tiny_tokenizer_json, tiny_vocabulary

ALIGNMENT_HEADS = ((1, 0), (2, 3))


def tiny_dims(**changes: int) -> Dimensions:
    """Width 64, 4 heads, 2 encoder and 3 decoder layers, the tiny vocabulary; or as given."""
    dims = Dimensions(
        n_mels=80,
        n_audio_ctx=1500,
        n_audio_state=64,
        n_audio_head=4,
        n_audio_layer=2,
        n_vocab=tiny_vocabulary().n_vocab,
        n_text_ctx=448,
        n_text_state=64,
        n_text_head=4,
        n_text_layer=3,
    )
    return replace(dims, **changes)


def tiny_state(dims: Dimensions | None = None, seed: int = 0) -> dict[str, torch.Tensor]:
    """A canonical state of random float32 weights of about the size that trained ones have."""
    generator = torch.Generator().manual_seed(seed)
    dims = dims or tiny_dims()
    state = {}
    for name, shape in canonical_shapes(dims).items():
        state[name] = 0.1 * torch.randn(shape, generator=generator)
        if "_ln." in name or ".ln" in name:
            state[name] += name.endswith("weight")
    positions = sinusoids(dims.n_audio_ctx, dims.n_audio_state)
    state["encoder.positional_embedding"] = torch.from_numpy(positions)
    return state


def tiny_checkpoint(dims: Dimensions | None = None, **fields: Any) -> Checkpoint:
    """A dense checkpoint with random weights; `fields` replace those of `Checkpoint`."""
    dims = dims or tiny_dims()
    defaults: dict[str, Any] = {
        "dims": dims,
        "state": tiny_state(dims),
        "vocabulary": tiny_vocabulary(),
        "alignment_heads": ALIGNMENT_HEADS,
        "is_multilingual": True,
        "source": "tiny",
        "format": "random",
    }
    return Checkpoint(**(defaults | fields))


def factorized_state(
    dims: Dimensions,
    rank: int = 8,
    *,
    separate: bool = False,
    mean: bool = False,
    dense_rows: int = 0,
) -> dict[str, torch.Tensor]:
    """`tiny_state` with a random factorized token embedding instead of the dense one."""
    generator = torch.Generator().manual_seed(1)
    state = tiny_state(dims)
    prefix = "decoder.token_embedding"
    del state[f"{prefix}.weight"]
    shapes = {"factors": (dims.n_vocab, rank), "input_projection": (rank, dims.n_text_state)}
    if separate:
        shapes["output_projection"] = (rank, dims.n_text_state)
    if dense_rows:
        shapes["dense_rows"] = (dense_rows, dims.n_text_state)
        state[f"{prefix}.dense_ids"] = torch.randperm(dims.n_vocab, generator=generator)[
            :dense_rows
        ]
    for name, shape in shapes.items():
        state[f"{prefix}.{name}"] = 0.3 * torch.randn(shape, generator=generator)
    if mean:
        state[f"{prefix}.mean"] = 0.1 * torch.randn(dims.n_text_state, generator=generator)
    return state


FORMS: dict[str, dict[str, Any] | None] = {
    "dense": None,
    "tied": {"mean": True, "dense_rows": 300},
    "untied": {"separate": True, "mean": True, "dense_rows": 300},
}
"""Kinds of token embedding, as options of `factorized_state`."""


EMBEDDINGS = FORMS | {
    "shared": {},
    "separate": {"separate": True},
    "mean": {"mean": True},
    "rows": {"dense_rows": 300},
}
"""All the kinds, each part of a factorized embedding also by itself."""


def tiny_form(form: str, **fields: Any) -> Checkpoint:
    """A checkpoint with one of `FORMS`; its positions are large, so that its text varies."""
    options = FORMS[form]
    dims = tiny_dims(n_audio_layer=1)
    state = tiny_state(dims) if options is None else factorized_state(dims, 16, **options)
    state["decoder.positional_embedding"] *= 10
    return tiny_checkpoint(dims, state=state, **fields)


def tiny_hf_model(dims: Dimensions | None = None, seed: int = 0) -> Any:
    """transformers' Whisper with random weights everywhere, biases and norms included."""
    from transformers import WhisperConfig, WhisperForConditionalGeneration

    dims = dims or tiny_dims()
    special = tiny_vocabulary().special_tokens
    end = special[CONTROL_TOKENS[0]]
    config = WhisperConfig(
        vocab_size=dims.n_vocab,
        num_mel_bins=dims.n_mels,
        d_model=dims.n_audio_state,
        encoder_layers=dims.n_audio_layer,
        encoder_attention_heads=dims.n_audio_head,
        encoder_ffn_dim=4 * dims.n_audio_state,
        decoder_layers=dims.n_text_layer,
        decoder_attention_heads=dims.n_text_head,
        decoder_ffn_dim=4 * dims.n_text_state,
        max_source_positions=dims.n_audio_ctx,
        max_target_positions=dims.n_text_ctx,
        pad_token_id=end,
        bos_token_id=end,
        eos_token_id=end,
        decoder_start_token_id=special[CONTROL_TOKENS[1]],
    )
    torch.manual_seed(seed)
    model = WhisperForConditionalGeneration(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if not name.endswith("encoder.embed_positions.weight"):
                parameter += 0.1 * torch.randn_like(parameter)
    model.generation_config.alignment_heads = [list(pair) for pair in ALIGNMENT_HEADS]
    model.generation_config.is_multilingual = True
    return model


def tiny_hf_folder(folder: Path, model: Any = None, **save: Any) -> Path:
    """Saves a Hugging Face folder with tokenizer; `save` goes to save_pretrained."""
    folder.mkdir(parents=True, exist_ok=True)
    (model or tiny_hf_model()).save_pretrained(folder, **save)
    tiny_tokenizer_json(folder)
    return folder


def as_pytorch(folder: Path, shards: int = 0) -> Path:
    """Replaces a folder's model.safetensors by the pickled files that older releases wrote."""
    from safetensors.torch import load_file

    state = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    if not shards:
        torch.save(state, folder / "pytorch_model.bin")
        return folder
    weight_map = {}
    for i in range(shards):
        name = f"pytorch_model-{i + 1:05}-of-{shards:05}.bin"
        part = {key: state[key] for key in list(state)[i::shards]}
        torch.save(part, folder / name)
        weight_map |= dict.fromkeys(part, name)
    index = json.dumps({"metadata": {}, "weight_map": weight_map})
    (folder / "pytorch_model.bin.index.json").write_text(index)
    return folder


def tiny_openai_pt(
    path: Path,
    dims: Dimensions | None = None,
    state: dict[str, torch.Tensor] | None = None,
) -> Path:
    """Saves OpenAI's single-file format, through openai-whisper's own model class."""
    from whisper.model import ModelDimensions, Whisper

    dims = dims or tiny_dims()
    model = Whisper(ModelDimensions(**asdict(dims)))
    model.load_state_dict(state or tiny_state(dims))
    torch.save({"dims": asdict(dims), "model_state_dict": model.state_dict()}, path)
    return path


def tiny_mlx_model(dims: Dimensions, state: dict[str, torch.Tensor]) -> Any:
    """mlx-whisper's own model class, filled as mlx-examples' convert.py does."""
    import mlx.core as mx
    from mlx_whisper.whisper import ModelDimensions, Whisper

    model = Whisper(ModelDimensions(**asdict(dims)), mx.float32)
    weights = []
    for name, tensor in state.items():
        if name == "encoder.positional_embedding":
            continue
        name = name.replace("mlp.0", "mlp1").replace("mlp.2", "mlp2")
        value = tensor.numpy().swapaxes(1, 2) if "conv" in name and tensor.ndim == 3 else tensor
        weights.append((name, mx.array(np.ascontiguousarray(value))))
    model.load_weights(weights, strict=False)
    model.set_alignment_heads(np.array(ALIGNMENT_HEADS))
    return model


def tiny_mlx_folder(
    folder: Path,
    dims: Dimensions,
    state: dict[str, torch.Tensor],
    *,
    file: str = "weights.safetensors",
    quantization: dict[str, int] | None = None,
) -> Path:
    """Saves an mlx-community folder: config.json and one weights file, no tokenizer."""
    import mlx.core as mx
    from mlx import nn
    from mlx.utils import tree_flatten

    folder.mkdir(parents=True, exist_ok=True)
    model = tiny_mlx_model(dims, state)
    config: dict[str, Any] = asdict(dims) | {"model_type": "whisper"}
    if quantization:
        nn.quantize(model, **quantization)
        config["quantization"] = quantization
    weights = dict(tree_flatten(model.parameters()))
    if file.endswith(".npz"):
        mx.savez(str(folder / file), **weights)
    else:
        mx.save_safetensors(str(folder / file), weights)
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def error_of(function: Callable[..., object], *args: object) -> str | None:
    """The message of the ValueError that a call raises; None if it returns."""
    try:
        function(*args)
    except ValueError as error:
        return str(error)
    return None


def edit_json(path: Path, **changes: Any) -> None:
    """Replaces keys of a JSON file; None removes one."""
    raw = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({k: v for k, v in raw.items() if v is not None}))


def write_ctranslate2(
    path: Path,
    variables: dict[str, np.ndarray[Any, Any]],
    aliases: dict[str, str] | None = None,
    *,
    version: int = 6,
    name: str = "WhisperSpec",
) -> Path:
    """Writes CTranslate2's binary format by hand, for files its converter would not make."""
    codes = ["float32", "int8", "int16", "int32", "float16"]

    def text(value: str) -> bytes:
        return struct.pack("<H", len(value) + 1) + value.encode() + b"\0"

    out = struct.pack("<I", version) + text(name) + struct.pack("<II", 3, len(variables))
    for key, array in variables.items():
        out += text(key) + struct.pack(f"<B{array.ndim}I", array.ndim, *array.shape)
        out += struct.pack("<BI", codes.index(array.dtype.name), array.nbytes) + array.tobytes()
    out += struct.pack("<I", len(aliases or {}))
    for alias, target in (aliases or {}).items():
        out += text(alias) + text(target)
    path.write_bytes(out)
    return path
