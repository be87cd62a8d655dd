"""What a folder in mlx-whisper's format holds, from its config and the header of its weights.

Everything is checked here before a tensor is read: dimensions, quantization, names, types and
shapes of all tensors, and the vocabulary. Works without MLX.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from baldwhisper_mlx.bounds import MOST_CONFIG_BYTES, check_dimensions
from baldwhisper_mlx.checkpoint.files import COMMUNITY_FILES
from baldwhisper_mlx.checkpoint.kind import DIMENSIONS
from baldwhisper_mlx.checkpoint.tensor_header import (
    Header,
    TensorInfo,
    read_npz_header,
    read_tensor_header,
)
from baldwhisper_mlx.checkpoint.tensors import FLOATS, check_tensors, expected_tensors
from baldwhisper_mlx.config import (
    CONFIG_FILE,
    CONTROL_TOKENS,
    N_TIMESTAMPS,
    VOCABULARY_FILE,
    Dtype,
    ModelConfig,
    default_alignment_heads,
)
from baldwhisper_mlx.files import read_json
from baldwhisper_mlx.quantization_config import Grouping, Quantization, matrix_of
from baldwhisper_mlx.terminal import quoted
from baldwhisper_mlx.text.languages import LANGUAGES
from baldwhisper_mlx.text.openai_vocabulary import (
    ENGLISH_ONLY_SIZE,
    rank_file,
    special_token_ids,
)
from baldwhisper_mlx.text.tokenizer import read_ranks

POSITIONS = "encoder.positional_embedding"
HEADS = "alignment_heads"
"""The one tensor that is no weight: pairs of decoder layer and head."""

_PART = re.compile(r"(.+\.)(attn|cross_attn)\.(query|key|value)\.(weight|scales|biases|bias)")
_INTEGERS = ("U8", "I8", "U16", "I16", "U32", "I32", "U64", "I64")


@dataclass(frozen=True)
class CommunityModel:
    """A checked folder in mlx-whisper's format."""

    config: ModelConfig
    """What it would be as an exported model; with the default alignment heads."""
    header: Header
    """The tensors of the weights file, under our names and without the alignment heads."""
    weights: Path
    ranks: dict[bytes, int]
    vocabulary: Path
    """The file that the ranks come from."""


def read_community_config(folder: Path) -> CommunityModel:
    """Reads all of a folder but the values of its tensors.

    Raises:
        FileNotFoundError: no weights.
        ValueError: a damaged file, another architecture, or a quantization unlike MLX's default.
    """
    raw = read_json(folder / CONFIG_FILE, MOST_CONFIG_BYTES)
    try:
        check_dimensions({name: raw[name] for name in DIMENSIONS})
    except ValueError as error:
        raise ValueError(f"{folder / CONFIG_FILE}: {error}") from None
    weights = next((folder / name for name in COMMUNITY_FILES if (folder / name).exists()), None)
    if weights is None:
        raise FileNotFoundError(f"{folder}: none of {', '.join(COMMUNITY_FILES)}")
    read = read_npz_header if weights.suffix == ".npz" else read_tensor_header
    header = read(weights)
    vocabulary = _vocabulary(folder, raw["n_vocab"])
    ranks = read_ranks(vocabulary)
    try:
        config = _config(raw, header, len(ranks))
        expected = expected_tensors(config)
        found = _fused(header)
        if POSITIONS not in found:  # mlx-whisper computes them when it builds the model
            del expected[POSITIONS]
        _check_heads(found.pop(HEADS, None), config)
        check_tensors(str(weights), expected, found, any_float=True)
    except ValueError as error:
        message = str(error).removeprefix(f"{weights}: ")
        raise ValueError(f"{weights}: not read as an mlx-whisper model ({message})") from None
    return CommunityModel(config, found, weights, ranks, vocabulary)


def _config(raw: dict[str, Any], header: Header, n_ranks: int) -> ModelConfig:
    most = n_ranks + len(CONTROL_TOKENS) + len(LANGUAGES) + N_TIMESTAMPS
    if raw["n_vocab"] > most:
        raise ValueError(
            f"n_vocab is {raw['n_vocab']}: OpenAI's vocabularies have at most {most} tokens; "
            "tokens that were added behind them, and rows of padding, are not supported"
        )
    special = special_token_ids(n_ranks, raw["n_vocab"])
    quantization = _quantization(raw.get("quantization") or raw.get("quantization_config"), header)
    return ModelConfig(
        **{name: raw[name] for name in DIMENSIONS},
        special_tokens=special,
        is_multilingual=raw["n_vocab"] > ENGLISH_ONLY_SIZE,
        timestamp_begin=n_ranks + len(special),
        alignment_heads=default_alignment_heads(raw["n_text_layer"], raw["n_text_head"]),
        dtype=_dtype(header),
        quantization=quantization,
    )


def _dtype(header: Header) -> Dtype:
    convolution = header.get("encoder.conv1.weight")
    names = {short: name for name, short in FLOATS.items()}
    if convolution is None or convolution.dtype not in names:
        raise ValueError("no encoder.conv1.weight of floating-point numbers")
    return cast(Dtype, names[convolution.dtype])


def _quantization(raw: Any, header: Header) -> Quantization | None:
    """The settings; those of single matrices; and an exception for each that has no scales."""
    if raw is None:
        return None
    if not isinstance(raw, dict):
        raise ValueError(f"config: bad value for quantization: {quoted(raw)}; expected an object")
    general = {key: value for key, value in raw.items() if "." not in key}
    default = Quantization.from_dict(_affine(general))
    overrides: dict[str, Grouping | None] = {}
    for path, entry in raw.items():
        if isinstance(entry, dict) and "." in path:
            own = Quantization.from_dict(_affine(entry))
            grouping = Grouping(bits=own.bits, group_size=own.group_size)
            if overrides.setdefault(fused_name(path), grouping) != grouping:
                raise ValueError(f"config: the parts of {fused_name(path)} are quantized unlike")
        elif "." in path and not isinstance(entry, bool):
            raise ValueError(f"config: bad value for quantization.{quoted(path)}: {quoted(entry)}")
    for name, info in header.items():
        path = matrix_of(name)
        if name.endswith(".weight") and len(info.shape) == 2 and f"{path}.scales" not in header:
            overrides[fused_name(path)] = None
    return replace(default, overrides=overrides)


def _affine(raw: dict[str, Any]) -> dict[str, Any]:
    """Settings without the name of the mode, if it is MLX's default one."""
    return {key: value for key, value in raw.items() if (key, value) != ("mode", "affine")}


def fused_name(name: str) -> str:
    """Our name of a tensor or matrix: query, key and value are one projection.

    Example:
        >>> fused_name("decoder.blocks.0.cross_attn.value.bias")
        'decoder.blocks.0.cross_attn.kv.bias'
    """
    leaf = "" if name.endswith((".weight", ".scales", ".biases", ".bias")) else ".weight"
    match = _PART.fullmatch(name + leaf)
    if match is None or (match[2], match[3]) == ("cross_attn", "query"):
        return name
    fused = f"{match[1]}{match[2]}.{'qkv' if match[2] == 'attn' else 'kv'}"
    return fused if leaf else f"{fused}.{match[4]}"


def fused_groups(names: Iterable[str]) -> dict[str, list[str]]:
    """For each of our tensors the names of its parts, in the order of their rows.

    Args:
        names: of all tensors of a file.

    Returns:
        Our name to names of the file: one, or those of query, key and value. Whisper's keys have
        no bias, so a bias has one part less, whose rows are zero.

    Raises:
        ValueError: a part is missing, or the fused tensor is there as well.
    """
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(fused_name(name), []).append(name)
    for fused, parts in groups.items():
        if parts == [fused]:
            continue
        prefix, leaf = parts[0].rsplit(".", 2)[0], parts[0].rsplit(".", 1)[1]
        order = ("query", "key", "value") if ".qkv." in fused else ("key", "value")
        wanted = [f"{prefix}.{part}.{leaf}" for part in order if (part, leaf) != ("key", "bias")]
        if sorted(parts) not in (sorted(wanted), sorted([*wanted, f"{prefix}.key.{leaf}"])):
            raise ValueError(f"{quoted(fused)} has the parts {', '.join(map(quoted, parts))}")
        parts.sort(key=[f"{prefix}.{part}.{leaf}" for part in order].index)
    return groups


def _fused(header: Header) -> Header:
    """The header that the file would have with joined projections."""
    fused: Header = {}
    for name, parts in fused_groups(header).items():
        infos = [header[part] for part in parts]
        first = infos[0]
        if len(parts) == 1 and parts[0] == name:
            fused[name] = first
            continue
        kinds = {(info.dtype, info.shape[1:]) for info in infos}
        if len(kinds) > 1 or any(not info.shape for info in infos):
            raise ValueError(f"the parts of {name} differ in type or shape")
        rows = sum(info.shape[0] for info in infos)
        if name.endswith(".bias") and not any(".key." in part for part in parts):
            rows += first.shape[0]
        fused[name] = TensorInfo(first.dtype, (rows, *first.shape[1:]))
    return fused


def _check_heads(info: TensorInfo | None, config: ModelConfig) -> None:
    most = config.n_text_layer * config.n_text_head
    if info is None:
        return
    shape = info.shape
    if info.dtype not in _INTEGERS or len(shape) != 2 or shape[1] != 2 or shape[0] > most:
        raise ValueError(f"{HEADS} of type {info.dtype} and shape {list(shape)}")


def _vocabulary(folder: Path, n_vocab: int) -> Path:
    own = folder / VOCABULARY_FILE
    return own if own.exists() else rank_file(n_vocab)
