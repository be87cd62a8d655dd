"""Reads dimensions, tensors and alignment heads of every checkpoint format.

One function for each format, from its files to `Weights` with canonical names and layouts; later
stages do not depend on the format.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from baldwhisper_convert.checkpoint.key_maps import (
    HF_DIMENSIONS,
    HUGGING_FACE,
    MLX_COMMUNITY,
    OPENAI,
    rename,
    unwrapped,
)
from baldwhisper_convert.checkpoint.state import Dimensions, Heads, State
from baldwhisper_convert.checkpoint.vocabulary import Vocabulary
from baldwhisper_convert.readers.ctranslate2 import read_ctranslate2
from baldwhisper_convert.readers.sidecars import (
    SourceWarning,
    check_heads,
    check_suppressed,
    generation_heads,
    stated_in_card,
    stated_multilingual,
    stated_suppressed,
)
from baldwhisper_convert.readers.torch_files import Tensors, as_tensors, load_torch_file
from baldwhisper_convert.readers.unsupported import (
    refuse_quantized_config,
    refuse_quantized_tensors,
)
from baldwhisper_convert.readers.weight_files import find_weights, load_tensors
from baldwhisper_mlx.config import AudioContext, ModelConfig
from baldwhisper_mlx.files import read_json
from baldwhisper_mlx.model.positions import sinusoids
from baldwhisper_mlx.terminal import quoted

_QUANTIZED = ("weight", "scales", "biases")


@dataclass(frozen=True, kw_only=True)
class Weights:
    """Contents of one checkpoint's files under canonical names, not yet checked."""

    dims: Dimensions
    state: State
    alignment_heads: Heads | None
    is_multilingual: bool | None = None
    languages: tuple[str, ...] | None = None
    suppress_tokens: tuple[int, ...] | None = None
    """Ids that the checkpoint's own files suppress, special ones included; None if they do not
    say."""
    format: str
    licence: str | None = None
    base_model: str | None = None
    vocabulary: Vocabulary | None = None
    """Set for model folders only; other formats have tokenizer files that are read separately."""
    audio_context: AudioContext = "full"
    audio_context_margin: int = ModelConfig.audio_context_margin


def read_weights(path: Path) -> Weights:
    """Reads dimensions, weights and alignment heads from a folder or an OpenAI `.pt` file.

    Raises:
        FileNotFoundError: no weights, or a file they need is missing.
        ValueError: not a Whisper, or damaged; the message names the file.
    """
    if path.is_file():
        return _openai(path)
    files = find_weights([file.name for file in path.iterdir()], str(path))
    if files.kind == "ctranslate2":
        return _ctranslate2(path / files.name)
    config = _config(path)
    source = str(path / files.name)
    tensors = _plain(load_tensors(files, path), source)
    if any("lora_" in name for name in tensors):
        raise ValueError(f"{source}: has LoRA tensors; merge them (peft's merge_and_unload) first")
    # The layout follows from the tensor names, not from the file name: mlx-audio saves MLX names
    # in a model.safetensors with a Hugging Face config.
    if any(".mlp1." in name for name in tensors):
        return _mlx_community(path, config, tensors, source)
    refuse_quantized_tensors(tensors, source)
    dims = _dimensions(config, path)
    if any(".mlp.0." in name for name in tensors):
        state = _renamed(tensors, OPENAI, source)
        kind = "OpenAI names in a folder"
    else:
        state, kind = _hugging_face(tensors, source), "Hugging Face"
    return Weights(
        dims=dims,
        state=state,
        alignment_heads=generation_heads(path, dims),
        is_multilingual=stated_multilingual(path),
        suppress_tokens=stated_suppressed(path),
        format=kind,
        licence=stated_in_card(path, "license"),
    )


def _openai(path: Path) -> Weights:
    """OpenAI's single file: a dictionary of `dims` and `model_state_dict`."""
    if path.suffix in (".json", ".safetensors", ".npz") or path.name == "model.bin":
        raise ValueError(
            f"{path}: give the folder that it is in; only OpenAI's .pt files are read alone"
        )
    raw = load_torch_file(path)
    if not isinstance(raw, dict) or not {"dims", "model_state_dict"} <= raw.keys():
        raise ValueError(f"{path}: not OpenAI's format; expected `dims` and `model_state_dict`")
    tensors = _plain(as_tensors(raw["model_state_dict"], f"{path}: model_state_dict"), str(path))
    refuse_quantized_tensors(tensors, str(path))
    return Weights(
        dims=Dimensions.from_mapping(raw["dims"], str(path)),
        state=_renamed(tensors, OPENAI, str(path)),
        alignment_heads=None,
        format="OpenAI",
    )


def _ctranslate2(path: Path) -> Weights:
    dims, state = read_ctranslate2(path)
    config = path.with_name("config.json")
    raw = read_json(config) if config.is_file() else {}
    if not isinstance(raw, dict):
        raise ValueError(f"{config}: expected a JSON object")
    return Weights(
        dims=dims,
        state=state,
        alignment_heads=check_heads(raw.get("alignment_heads"), dims, config),
        suppress_tokens=check_suppressed(raw.get("suppress_ids"), config, "suppress_ids"),
        format="CTranslate2",
        licence=stated_in_card(path.parent, "license"),
    )


def _plain(tensors: Tensors, source: str) -> Tensors:
    """The tensors under names without the prefixes of training wrappers and of transformers."""
    return {new: tensors[old] for old, new in unwrapped(tensors, source).items()}


def _hugging_face(tensors: Tensors, source: str) -> State:
    """transformers' names without `model.`; the output must be tied to the input."""
    output, embedding = tensors.get("proj_out.weight"), tensors.get("decoder.embed_tokens.weight")
    if output is not None and embedding is not None and not torch.equal(output, embedding):
        raise ValueError(
            f"{source}: proj_out.weight differs from decoder.embed_tokens.weight; only models "
            "that tie the two can be exported"
        )
    return _renamed(tensors, HUGGING_FACE, source)


def _mlx_community(path: Path, config: Any, tensors: Tensors, source: str) -> Weights:
    """mlx-whisper's names and layout; quantized layers are expanded, positions recomputed."""
    dims = _dimensions(config, path)
    heads = tensors.get("alignment_heads")
    tensors = _dequantized(tensors, config, source)
    state = _renamed(tensors, MLX_COMMUNITY, source)
    for name in ("encoder.conv1.weight", "encoder.conv2.weight"):
        if name in state and state[name].ndim == 3:
            state[name] = state[name].permute(0, 2, 1)
    width = state.get("encoder.conv2.bias", torch.zeros(0)).shape
    if "encoder.positional_embedding" not in state and width == (dims.n_audio_state,):
        # mlx-whisper computes them too, so its checkpoints may lack them.
        positions = sinusoids(dims.n_audio_ctx, dims.n_audio_state)
        state["encoder.positional_embedding"] = torch.from_numpy(positions)
    stored_heads = check_heads(None if heads is None else heads.tolist(), dims, Path(source))
    return Weights(
        dims=dims,
        state=state,
        alignment_heads=stored_heads or generation_heads(path, dims),
        suppress_tokens=stated_suppressed(path),
        format="mlx-community",
        licence=stated_in_card(path, "license"),
    )


def _dequantized(tensors: Tensors, config: Any, source: str) -> Tensors:
    """Expands MLX's affine quantization: every `weight` that has `scales` beside it."""
    names = [name.removesuffix(".scales") for name in tensors if name.endswith(".scales")]
    if not names:
        return tensors
    settings = config.get("quantization") or config.get("quantization_config")
    if not isinstance(settings, dict):
        raise ValueError(
            f"{source}: quantized, but `quantization` of config.json is missing or no object"
        )
    import mlx.core as mx

    plain = dict(tensors)
    for name in names:
        layer = settings.get(name, settings)  # settings of one layer, or the general ones
        affine = isinstance(layer, dict) and layer.get("mode", "affine") == "affine"
        if not affine or not {f"{name}.weight", f"{name}.biases"} <= plain.keys():
            raise ValueError(f"{source}: {name} is not quantized in MLX's affine mode")
        packed, scales, biases = (plain.pop(f"{name}.{leaf}") for leaf in _QUANTIZED)
        try:
            weight = mx.dequantize(
                mx.array(packed.numpy()),
                mx.array(scales.float().numpy()),
                mx.array(biases.float().numpy()),
                group_size=layer["group_size"],
                bits=layer["bits"],
                stream=mx.cpu,
            )
            # np.array evaluates here: MLX is lazy and would report a wrong shape later.
            plain[f"{name}.weight"] = torch.from_numpy(np.array(weight))
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise ValueError(f"{source}: {name} cannot be dequantized ({error})") from None
    warnings.warn(
        f"{source}: quantized to {settings.get('bits')} bits; the lost precision is not recovered",
        SourceWarning,
        stacklevel=2,
    )
    return plain


def _renamed(tensors: Tensors, table: dict[str, str | None], source: str) -> State:
    names = rename(tensors, table, source)
    return {new: tensors[old] for old, new in names.items() if new is not None}


def _config(folder: Path) -> dict[str, Any]:
    config = read_json(folder / "config.json")
    if not isinstance(config, dict):
        raise ValueError(f"{folder / 'config.json'}: expected a JSON object")
    kind = config.get("model_type", "whisper")
    if kind != "whisper":
        raise ValueError(
            f"{folder / 'config.json'}: model_type is {quoted(kind)}, expected 'whisper'"
        )
    refuse_quantized_config(config, folder / "config.json")
    return config


def _dimensions(config: dict[str, Any], folder: Path) -> Dimensions:
    """Dimensions by a config of either kind: OpenAI's field names or transformers'."""
    source = str(folder / "config.json")
    if "n_mels" in config:
        return Dimensions.from_mapping(config, source)
    if config.get("activation_function", "gelu") != "gelu" or config.get("scale_embedding"):
        raise ValueError(
            f"{source}: not a Whisper, which has activation_function gelu and scale_embedding false"
        )
    return Dimensions.from_mapping(config, source, HF_DIMENSIONS)
