"""Writes a checkpoint in the format of whisper.cpp, so that it can be measured with our weights.

Layout of version 1 of the "ggml" file, as whisper.cpp's `models/convert-pt-to-ggml.py` (MIT)
writes and `whisper_model_load` reads it: magic, dimensions, mel filters, vocabulary, tensors.
All integers are little-endian and 32 bits wide. Matrices are float16, which is what whisper.cpp
computes with; vectors and positions are float32.

    python -m benchmarks.peers.ggml CHECKPOINT model.bin
"""

from __future__ import annotations

import os
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
from benchmarks.options import Benchmark

MAGIC = 0x67676D6C
FLOAT32, FLOAT16 = 0, 1
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


def write_ggml(checkpoint: Checkpoint, path: Path) -> Path:
    """Writes the file, whole or not at all; a factorized embedding is multiplied out.

    Args:
        checkpoint: a Whisper whose input and output embedding are one.
        path: of the file.

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
    temporary = path.with_name(f".{path.name}.part")
    with temporary.open("wb") as file:
        _integers(file, MAGIC, *(getattr(checkpoint.dims, name) for name in DIMENSIONS), FLOAT16)
        filters = mel_filters(checkpoint.dims.n_mels).T  # (n_mels, 201)
        _integers(file, *filters.shape)
        file.write(np.ascontiguousarray(filters, "<f4").tobytes())
        ranks = sorted(checkpoint.vocabulary.ranks.items(), key=lambda item: item[1])
        _integers(file, len(ranks))
        for token, _ in ranks:
            _integers(file, len(token))
            file.write(token)
        for name, value in tensors.items():
            _tensor(file, name, value)
    os.replace(temporary, path)
    return path


def _integers(file: BinaryIO, *values: int) -> None:
    file.write(struct.pack(f"<{len(values)}i", *values))


def _tensor(file: BinaryIO, name: str, value: np.ndarray[Any, Any]) -> None:
    """One tensor: rank, length of the name, type, dimensions innermost first, name, data."""
    if name in ("encoder.conv1.bias", "encoder.conv2.bias"):
        value = value[:, None]  # added to a row of frames
    wide = value.ndim < 2 or value.shape[-1] == 1 or name.endswith("positional_embedding")
    encoded = name.encode()
    _integers(file, value.ndim, len(encoded), FLOAT32 if wide else FLOAT16, *value.shape[::-1])
    file.write(encoded)
    file.write(np.ascontiguousarray(value, "<f4" if wide else "<f2").tobytes())


@click.command(cls=Benchmark)
@click.argument("checkpoint")
@click.argument("output", type=click.Path(path_type=Path))
def main(checkpoint: str, output: Path) -> None:
    """Write CHECKPOINT, in any format that export reads, for whisper.cpp."""
    write_ggml(read_checkpoint(checkpoint), output)


if __name__ == "__main__":
    main()
