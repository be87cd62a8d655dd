"""Which tensors a model must have, and whether a file has them.

The list follows from the config alone (docs/format.md), so a file is compared with it before a
model is built. `tests/runtime/checkpoint/test_tensors.py` compares it with the model. Without MLX.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from baldwhisper_mlx.checkpoint.tensor_header import Header, TensorInfo
from baldwhisper_mlx.config import ModelConfig
from baldwhisper_mlx.terminal import quoted

FLOATS = {"float16": "F16", "bfloat16": "BF16", "float32": "F32"}
"""`dtype` of a config to its name in a safetensors file."""

EMBEDDING = "decoder.token_embedding"
DENSE_IDS = f"{EMBEDDING}.dense_ids"


def expected_tensors(config: ModelConfig) -> Header:
    """Name, type and shape of every tensor that the weights file of a model has.

    Args:
        config: of an exported model.

    Raises:
        ValueError: a quantization whose groups do not divide the rows, or that names a matrix
            which the model does not have.
    """
    matrices = dict(_matrices(config))
    quantization = config.quantization
    unknown = sorted(set(quantization.overrides) - set(matrices)) if quantization else []
    if unknown:
        raise ValueError(
            "config: quantization.overrides names no matrix of this model: "
            + ", ".join(quoted(path) for path in unknown[:5])
        )
    dtype = FLOATS[config.dtype]
    tensors: Header = {name: TensorInfo(dtype, shape) for name, shape in _vectors(config)}
    if config.embedding_dense_rows:
        tensors[DENSE_IDS] = TensorInfo("I32", (config.embedding_dense_rows,))
    factorized = config.embedding_rank is not None
    for path, (rows, columns) in matrices.items():
        grouping = quantization.of(path) if quantization else None
        if grouping is None:
            bare = factorized and path.startswith(f"{EMBEDDING}.")
            tensors[path if bare else f"{path}.weight"] = TensorInfo(dtype, (rows, columns))
            continue
        if columns % grouping.group_size:
            raise ValueError(
                f"config: quantization of {path}: its rows of {columns} numbers do not divide "
                f"into groups of {grouping.group_size}"
            )
        groups = columns // grouping.group_size
        tensors[f"{path}.weight"] = TensorInfo("U32", (rows, columns * grouping.bits // 32))
        tensors[f"{path}.scales"] = TensorInfo(dtype, (rows, groups))
        tensors[f"{path}.biases"] = TensorInfo(dtype, (rows, groups))
    return tensors


def _matrices(config: ModelConfig) -> Iterator[tuple[str, tuple[int, int]]]:
    """Path and shape of every matrix that may be quantized."""
    d = config.n_audio_state
    for side, layers in (("encoder", config.n_audio_layer), ("decoder", config.n_text_layer)):
        for i in range(layers):
            block = f"{side}.blocks.{i}"
            yield f"{block}.attn.qkv", (3 * d, d)
            yield f"{block}.attn.out", (d, d)
            if side == "decoder":
                yield f"{block}.cross_attn.query", (d, d)
                yield f"{block}.cross_attn.kv", (2 * d, d)
                yield f"{block}.cross_attn.out", (d, d)
            yield f"{block}.mlp1", (4 * d, d)
            yield f"{block}.mlp2", (d, 4 * d)
    rank = config.embedding_rank
    if rank is None:
        yield EMBEDDING, (config.n_vocab, d)
        return
    yield f"{EMBEDDING}.factors", (config.n_vocab, rank)
    yield f"{EMBEDDING}.input_projection", (rank, d)
    if config.embedding_projections == "separate":
        yield f"{EMBEDDING}.output_projection", (rank, d)
    if config.embedding_dense_rows:
        yield f"{EMBEDDING}.dense_rows", (config.embedding_dense_rows, d)


def _vectors(config: ModelConfig) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Name and shape of everything else that is floating point."""
    d = config.n_audio_state
    for i, channels in ((1, config.n_mels), (2, d)):
        yield f"encoder.conv{i}.weight", (d, 3, channels)
        yield f"encoder.conv{i}.bias", (d,)
    yield "encoder.positional_embedding", (config.n_audio_ctx, d)
    yield "decoder.positional_embedding", (config.n_text_ctx, d)
    for path, (rows, _) in _matrices(config):
        if not path.startswith(EMBEDDING):
            yield f"{path}.bias", (rows,)
    norms = ["encoder.ln_post", "decoder.ln"]
    for side, layers in (("encoder", config.n_audio_layer), ("decoder", config.n_text_layer)):
        parts = ("attn_ln", "mlp_ln", *(["cross_attn_ln"] if side == "decoder" else []))
        norms += [f"{side}.blocks.{i}.{part}" for i in range(layers) for part in parts]
    for norm in norms:
        yield f"{norm}.weight", (d,)
        yield f"{norm}.bias", (d,)
    if config.embedding_mean:
        yield f"{EMBEDDING}.mean", (d,)


def check_tensors(source: str, expected: Header, found: Header, *, any_float: bool = False) -> None:
    """Compares the tensors of a file with those that a model must have.

    Args:
        source: file or folder they come from, for the message.
        expected: from `expected_tensors`, or another list.
        found: the header of the file.
        any_float: take any floating-point type of `FLOATS` where one is expected.

    Raises:
        ValueError: missing, unexpected, of another shape or of another type; the message names
            the first five of each.
    """
    both = sorted(expected.keys() & found.keys())
    floats = set(FLOATS.values()) if any_float else set()
    problems = {
        "missing": sorted(expected.keys() - found.keys()),
        "unexpected": [quoted(name) for name in sorted(found.keys() - expected.keys())],
        "of another shape": [
            f"{name} {list(found[name].shape)} instead of {list(expected[name].shape)}"
            for name in both
            if found[name].shape != expected[name].shape
        ],
        "of another type": [
            f"{name} {found[name].dtype} instead of {expected[name].dtype}"
            for name in both
            if found[name].dtype != expected[name].dtype
            and not {found[name].dtype, expected[name].dtype} <= floats
        ],
    }
    parts = [f"{what}: {_listed(names)}" for what, names in problems.items() if names]
    if parts:
        raise ValueError(f"{source}: tensors {'; '.join(parts)}")


def check_indices(source: str, name: str, values: Iterable[int], size: int) -> None:
    """Makes sure that stored indices are distinct and below the size of what they point into.

    MLX does not check indices: a gather outside an array reads other memory, and a scatter writes
    there.

    Args:
        source: file they come from, for the message.
        name: of the tensor.
        values: the indices.
        size: of the axis that they index.

    Raises:
        ValueError: an index that is negative, too large or there twice.
    """
    seen: set[int] = set()
    for value in values:
        if not 0 <= value < size or value in seen:
            raise ValueError(
                f"{source}: {name} must be distinct whole numbers from 0 to {size - 1}, but has "
                f"{value}{' twice' if value in seen else ''}"
            )
        seen.add(value)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if names[5:] else "")
