"""padding.safetensors: the constants of a model folder's padded audio context.

Tensors `keys` and `values` (layers, H, n, head_dim) and `states` (N, d), see model/padding.py, in
float16, and the settings as metadata. `load_model` reads it; docs/format.md describes it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import mlx.core as mx

from baldwhisper_mlx.audio.buffer import Samples
from baldwhisper_mlx.audio.features import LogMelSpectrogram
from baldwhisper_mlx.checkpoint.files import PADDING_FORMAT
from baldwhisper_mlx.checkpoint.load import load_model
from baldwhisper_mlx.config import PADDING_FILE, SAMPLE_RATE
from baldwhisper_mlx.files import atomic_file
from baldwhisper_mlx.model.calibration import STRIDE, TAIL, calibrate

PIECES = (0.5, 2.0)
"""Seconds of each recording that are encoded: short, so that long padding is seen, too."""


def write_padding(
    folder: Path, recordings: Sequence[Samples], *, stride: int = STRIDE, tail: int = TAIL
) -> Path:
    """Calibrates the model in a folder, and stores the constants beside it.

    Args:
        folder: an exported model that was trained on 30 s.
        recordings: a few of speech, mono at 16 kHz (n,); their beginnings are used.
        stride: encoder positions (20 ms) that one constant key stands for.
        tail: positions of padding that the decoder attends to.

    Returns:
        The file.

    Raises:
        ValueError: no recordings, stride or tail do not fit, or another audio context.
    """
    loaded = load_model(folder, audio_context="full")
    pieces = [samples[: round(s * SAMPLE_RATE)] for samples in recordings for s in PIECES]
    features = [LogMelSpectrogram(piece, loaded.config.n_mels) for piece in pieces]
    padding = calibrate(
        loaded.model.encoder,
        [mel.window(0) for mel in features],
        [mel.n_frames for mel in features],
        stride=stride,
        tail=tail,
    )
    arrays = {"keys": padding.keys, "values": padding.values, "states": padding.states}
    tensors = {name: array.astype(mx.float16) for name, array in arrays.items()}
    metadata = {"format": PADDING_FORMAT, "clips": str(len(recordings))}
    metadata |= {"stride": str(stride), "tail": str(tail)}
    with atomic_file(folder / PADDING_FILE) as temporary, temporary.open("wb") as file:
        mx.save_safetensors(file, tensors, metadata)
    return folder / PADDING_FILE
