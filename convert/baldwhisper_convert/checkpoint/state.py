"""The canonical Whisper state: OpenAI's dimensions, names and shapes, and its invariants.

Every reader produces it and every later stage uses it, so this module defines which tensors a
complete Whisper has. Missing, unexpected and wrongly shaped tensors are all errors; the message
has the expected and the actual shape.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from baldwhisper_convert.checkpoint.key_maps import FUSED, listed, match, match_any
from baldwhisper_mlx.bounds import check_dimensions
from baldwhisper_mlx.config import Dtype, EmbeddingProjections

State = dict[str, torch.Tensor]
Heads = tuple[tuple[int, int], ...]

EMBEDDING = "decoder.token_embedding"
CONVOLUTIONS = ("encoder.conv1.weight", "encoder.conv2.weight")

_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


@dataclass(frozen=True, kw_only=True)
class Dimensions:
    """OpenAI's ModelDimensions, field for field.

    Raises:
        ValueError: a field is not a positive integer, or far larger than Whisper's.
    """

    n_mels: int
    n_audio_ctx: int
    n_audio_state: int
    n_audio_head: int
    n_audio_layer: int
    n_vocab: int
    n_text_ctx: int
    n_text_state: int
    n_text_head: int
    n_text_layer: int

    def __post_init__(self) -> None:
        check_dimensions(dataclasses.asdict(self))

    @classmethod
    def from_mapping(
        cls, raw: Any, source: str, keys: Mapping[str, str] | None = None
    ) -> Dimensions:
        """Dimensions from a mapping that has the ten fields; other keys are not looked at.

        Args:
            raw: from a file.
            source: the file, for errors.
            keys: field to key, if the file has other names for them.

        Raises:
            ValueError: not a mapping, missing fields, or bad values; names the key.
        """
        keys = keys or {field.name: field.name for field in dataclasses.fields(cls)}
        if not isinstance(raw, dict):
            raise ValueError(
                f"{source}: expected the dimensions {listed(keys.values())}; found "
                f"{type(raw).__name__}"
            )
        missing = {key for key in keys.values() if key not in raw}
        if missing:
            raise ValueError(f"{source}: missing {listed(missing)}")
        values = {field: raw[key] for field, key in keys.items()}
        try:
            check_dimensions(values, keys)
            return cls(**values)
        except ValueError as error:
            raise ValueError(f"{source}: {error}") from None


@dataclass(frozen=True, kw_only=True)
class EmbeddingForm:
    """How a state stores its token embedding; the fields are ModelConfig's `embedding_*`."""

    rank: int | None = None
    projections: EmbeddingProjections = "shared"
    mean: bool = False
    dense_rows: int = 0

    @classmethod
    def of(cls, state: State) -> EmbeddingForm:
        """The form of a state, from its `decoder.token_embedding.*` tensors."""
        factors = state.get(f"{EMBEDDING}.factors")
        if factors is None or factors.ndim != 2:
            return cls()
        rows = state.get(f"{EMBEDDING}.dense_rows")
        return cls(
            rank=factors.shape[1],
            projections="separate" if f"{EMBEDDING}.output_projection" in state else "shared",
            mean=f"{EMBEDDING}.mean" in state,
            dense_rows=0 if rows is None or rows.ndim != 2 else rows.shape[0],
        )

    def shapes(self, dims: Dimensions) -> dict[str, tuple[int, ...]]:
        """Shapes by name of the embedding's tensors in this form."""
        vocab, width, rank = dims.n_vocab, dims.n_text_state, self.rank
        if rank is None:
            return {f"{EMBEDDING}.weight": (vocab, width)}
        shapes: dict[str, tuple[int, ...]] = {
            f"{EMBEDDING}.factors": (vocab, rank),
            f"{EMBEDDING}.input_projection": (rank, width),
        }
        if self.projections == "separate":
            shapes[f"{EMBEDDING}.output_projection"] = (rank, width)
        if self.mean:
            shapes[f"{EMBEDDING}.mean"] = (width,)
        if self.dense_rows:
            shapes[f"{EMBEDDING}.dense_rows"] = (self.dense_rows, width)
            shapes[f"{EMBEDDING}.dense_ids"] = (self.dense_rows,)
        return shapes


def canonical_shapes(
    dims: Dimensions, embedding: EmbeddingForm | None = None
) -> dict[str, tuple[int, ...]]:
    """Name to shape of every tensor a Whisper of these dimensions has (openai-whisper's).

    Args:
        dims: the model's dimensions.
        embedding: form of the token embedding; dense if None.
    """
    audio, text = dims.n_audio_state, dims.n_text_state
    shapes: dict[str, tuple[int, ...]] = {
        "encoder.conv1.weight": (audio, dims.n_mels, 3),
        "encoder.conv1.bias": (audio,),
        "encoder.conv2.weight": (audio, audio, 3),
        "encoder.conv2.bias": (audio,),
        "encoder.positional_embedding": (dims.n_audio_ctx, audio),
        "decoder.positional_embedding": (dims.n_text_ctx, text),
    }
    for i in range(dims.n_audio_layer):
        shapes |= _block_shapes(f"encoder.blocks.{i}", audio, cross=None)
    for i in range(dims.n_text_layer):
        shapes |= _block_shapes(f"decoder.blocks.{i}", text, cross=audio)
    for name, width in (("encoder.ln_post", audio), ("decoder.ln", text)):
        shapes |= {f"{name}.weight": (width,), f"{name}.bias": (width,)}
    return shapes | (embedding or EmbeddingForm()).shapes(dims)


def _block_shapes(prefix: str, width: int, cross: int | None) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    for attn, source in (("attn", width), ("cross_attn", cross)):
        if source is None:
            continue
        for part, inputs in (("query", width), ("key", source), ("value", source), ("out", width)):
            shapes[f"{prefix}.{attn}.{part}.weight"] = (width, inputs)
            if part != "key":
                shapes[f"{prefix}.{attn}.{part}.bias"] = (width,)
        shapes |= {f"{prefix}.{attn}_ln.weight": (width,), f"{prefix}.{attn}_ln.bias": (width,)}
    return shapes | {
        f"{prefix}.mlp.0.weight": (4 * width, width),
        f"{prefix}.mlp.0.bias": (4 * width,),
        f"{prefix}.mlp.2.weight": (width, 4 * width),
        f"{prefix}.mlp.2.bias": (width,),
        f"{prefix}.mlp_ln.weight": (width,),
        f"{prefix}.mlp_ln.bias": (width,),
    }


def check_state(state: State, shapes: dict[str, tuple[int, ...]], source: str) -> None:
    """Checks names, shapes, types and values of a state.

    Raises:
        ValueError: missing, unexpected or wrongly shaped tensors (all of them are named), one
            that is not floating point, or one with NaN or infinity; `dense_ids` that are not
            integers, not in the vocabulary or not distinct.
    """
    missing, unexpected = shapes.keys() - state.keys(), state.keys() - shapes.keys()
    wrong = [
        f"{name} (expected {list(shape)}, found {list(state[name].shape)})"
        for name, shape in shapes.items()
        if name in state and tuple(state[name].shape) != shape
    ]
    problems = [f"missing {listed(missing)}"] if missing else []
    problems += [f"unexpected {listed(unexpected)}"] if unexpected else []
    problems += [f"wrong shape of {listed(wrong)}"] if wrong else []
    if problems:
        raise ValueError(f"{source}: {'; '.join(problems)}")
    for name, tensor in state.items():
        if name == f"{EMBEDDING}.dense_ids":
            _check_ids(tensor, shapes[f"{EMBEDDING}.factors"][0], f"{source}: {name}")
            continue
        if tensor.dtype not in _FLOATS:
            raise ValueError(f"{source}: {name} holds {tensor.dtype}, expected floating point")
        if not bool(torch.isfinite(tensor).all()):
            raise ValueError(f"{source}: {name} contains NaN or infinity; the weights are damaged")


def converted(tensor: torch.Tensor, dtype: Dtype, what: str) -> torch.Tensor:
    """A contiguous tensor in another type.

    Args:
        tensor: floating point.
        dtype: the type to store it in.
        what: source and name of the tensor, for the error.

    Raises:
        ValueError: a finite value becomes infinite.
    """
    result = tensor.to(getattr(torch, dtype)).contiguous()
    if not bool(torch.isfinite(result).all()):
        raise ValueError(
            f"{what} has values up to {float(tensor.abs().max()):g}, which overflow {dtype}; "
            "export with --dtype float32 or bfloat16"
        )
    return result


def _check_ids(ids: torch.Tensor, n_vocab: int, what: str) -> None:
    if ids.dtype not in (torch.int32, torch.int64):
        raise ValueError(f"{what} holds {ids.dtype}, expected integers")
    if (
        ids.numel() == 0
        or int(ids.min()) < 0
        or int(ids.max()) >= n_vocab
        or ids.unique().numel() != ids.numel()
    ):
        raise ValueError(f"{what} are not distinct token ids from 0 to {n_vocab - 1}")


def split_fused(state: State, source: str) -> State:
    """Splits fused qkv and kv projections into the canonical ones; other tensors stay as is.

    Raises:
        ValueError: rows that do not divide, or a key bias that is not zero.
    """
    split: State = {}
    for name, tensor in state.items():
        matched = match_any(FUSED, name)
        if matched is None:
            split[name] = tensor
            continue
        pattern, values = matched
        parts = [part.format(**values) for part in FUSED[pattern]]
        if tensor.ndim == 0 or tensor.shape[0] % len(parts):
            raise ValueError(
                f"{source}: {name} has shape {list(tensor.shape)}, expected rows in "
                f"{len(parts)} equal parts"
            )
        for part, rows in zip(parts, tensor.chunk(len(parts)), strict=True):
            if not part.endswith(".key.bias"):
                split[part] = rows
            elif bool((rows != 0).any()):
                raise ValueError(f"{source}: {part} is not zero, but a Whisper has no key bias")
    return split


def fuse(state: State) -> State:
    """Inverse of `split_fused`: joins query, key and value, and key and value of the
    cross-attention, by rows; the missing key bias becomes zeros."""
    fused = dict(state)
    for pattern, parts in FUSED.items():
        # Each group is identified by its value projection, which has both a weight and a bias.
        for name in state:
            values = match(parts[-1], name)
            if values is None:
                continue
            blank = torch.zeros_like(state[name])
            rows = [fused.pop(part.format(**values), blank) for part in parts]
            fused[pattern.format(**values)] = torch.cat(rows)
    return fused
