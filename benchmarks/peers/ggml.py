"""Writes a checkpoint in the format of whisper.cpp, so that it can be measured with our weights.

Layout of version 1 of the "ggml" file, as whisper.cpp's `models/convert-pt-to-ggml.py` (MIT)
writes and `whisper_model_load` reads it: magic, dimensions, mel filters, vocabulary, tensors.
All integers are little-endian and 32 bits wide. Matrices are float16, which is what whisper.cpp
computes with, or 8 bits in blocks of 32 (q8_0, as whisper.cpp's `quantize` makes of them); vectors,
positions and, in a quantized file, kernels of convolutions stay as they are.

    python -m benchmarks.peers.ggml CHECKPOINT model.bin
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any, BinaryIO

import click
import numpy as np

from baldwhisper_convert.checkpoint.checkpoint import Checkpoint
from baldwhisper_convert.checkpoint.state import EMBEDDING
from baldwhisper_convert.export.hugging_face import dense_embedding
from baldwhisper_convert.readers.read import read_checkpoint
from baldwhisper_mlx.audio.features import mel_filters
from baldwhisper_mlx.files import atomic_file
from benchmarks.options import Benchmark

MAGIC = 0x67676D6C
FLOAT32, FLOAT16, Q8_0 = 0, 1, 8
"""Types of tensors (enum ggml_type)."""
MOSTLY_FLOAT16, MOSTLY_Q8_0 = 1, 7
"""Types of files (enum ggml_ftype)."""
BLOCK = 32
"""Values of a row that share a scale in Q8_0."""
DIMENSIONS = (
    "n_vocab",
    "n_audio_ctx",
    "n_audio_state",
    "n_audio_head",
    "n_audio_layer",
    "n_text_ctx",
    "n_text_state",
    "n_text_head",
    "n_text_layer",
    "n_mels",
)
"""In the order of the file."""


def write_ggml(checkpoint: Checkpoint, path: Path, *, quantized: bool = False) -> Path:
    """Writes the file, whole or not at all; a factorized embedding is multiplied out.

    Args:
        checkpoint: a Whisper whose input and output embedding are one.
        path: of the file.
        quantized: matrices in Q8_0.

    Raises:
        ValueError: input and output embedding differ, which the format cannot say.
    """
    first, second = dense_embedding(checkpoint.state)
    if first is not second and not (first == second).all():
        raise ValueError(f"{checkpoint.source}: two embeddings, and whisper.cpp knows one")
    tensors = {
        name: tensor.float().numpy()
        for name, tensor in checkpoint.state.items()
        if not name.startswith(EMBEDDING)
    }
    tensors[f"{EMBEDDING}.weight"] = first.numpy()
    kind = MOSTLY_Q8_0 if quantized else MOSTLY_FLOAT16
    with atomic_file(path) as temporary, temporary.open("wb") as file:
        _integers(file, MAGIC, *(getattr(checkpoint.dims, name) for name in DIMENSIONS), kind)
        filters = mel_filters(checkpoint.dims.n_mels).T  # (n_mels, 201)
        _integers(file, *filters.shape)
        file.write(np.ascontiguousarray(filters, "<f4").tobytes())
        ranks = sorted(checkpoint.vocabulary.ranks.items(), key=lambda item: item[1])
        _integers(file, len(ranks))
        for token, _ in ranks:
            _integers(file, len(token))
            file.write(token)
        for name, value in tensors.items():
            _tensor(file, name, value, quantized=quantized)
    return path


def _integers(file: BinaryIO, *values: int) -> None:
    file.write(struct.pack(f"<{len(values)}i", *values))


def _tensor(file: BinaryIO, name: str, value: np.ndarray[Any, Any], *, quantized: bool) -> None:
    """One tensor: rank, length of the name, type, dimensions innermost first, name, data."""
    if name in ("encoder.conv1.bias", "encoder.conv2.bias"):
        value = value[:, None]  # added to a row of frames
    wide = value.ndim < 2 or value.shape[-1] == 1 or name.endswith("positional_embedding")
    small = quantized and not wide and value.ndim == 2
    encoded = name.encode()
    kind = Q8_0 if small else FLOAT32 if wide else FLOAT16
    _integers(file, value.ndim, len(encoded), kind, *value.shape[::-1])
    file.write(encoded)
    if small:
        file.write(q8_0(value))
    else:
        file.write(np.ascontiguousarray(value, "<f4" if wide else "<f2").tobytes())


def q8_0(value: np.ndarray[Any, Any]) -> bytes:
    """A matrix in blocks of 32 values of a row: the scale max |x| / 127 in float16, then int8.

    Follows `quantize_row_q8_0_ref` of ggml, which divides by the scale before it is rounded.

    Args:
        value: (rows, columns), columns a multiple of 32.
    """
    blocks = np.ascontiguousarray(value, np.float32).reshape(-1, BLOCK)
    scale = np.abs(blocks).max(1, keepdims=True) / np.float32(127)
    inverse = np.divide(1, scale, out=np.zeros_like(scale), where=scale > 0)
    x = blocks * inverse
    whole = np.sign(x) * np.floor(np.abs(x) + np.float32(0.5))  # roundf: halves away from zero
    layout = np.dtype([("scale", "<f2"), ("values", "i1", BLOCK)])
    packed = np.empty(len(blocks), layout)
    packed["scale"], packed["values"] = scale[:, 0], whole
    return packed.tobytes()


@click.command(cls=Benchmark)
@click.argument("checkpoint")
@click.argument("output", type=click.Path(path_type=Path))
def main(checkpoint: str, output: Path) -> None:
    """Write CHECKPOINT, in any format that export reads, for whisper.cpp."""
    write_ggml(read_checkpoint(checkpoint), output)


if __name__ == "__main__":
    main()
