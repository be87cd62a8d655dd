"""padding.safetensors: the constants of a model folder's padded audio context.

Tensors `keys` and `values` (layers, H, n, head_dim) and `states` (N, d), see model/padding.py, in
float16, and the settings as metadata. docs/format.md describes it. padding_reader.py reads it;
where a folder has none, `load_model` can compute the constants from speech in the package.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import mlx.core as mx

from baldwhisper_mlx.audio.buffer import Samples
from baldwhisper_mlx.audio.features import LogMelSpectrogram
from baldwhisper_mlx.audio.load import load_audio
from baldwhisper_mlx.checkpoint.files import PADDING_FORMAT
from baldwhisper_mlx.config import SAMPLE_RATE
from baldwhisper_mlx.files import atomic_file
from baldwhisper_mlx.model.calibration import STRIDE, TAIL, calibrate
from baldwhisper_mlx.model.padding import Padding
from baldwhisper_mlx.model.whisper import Whisper

PIECES = (0.5, 2.0)
"""Seconds of each recording that are encoded: short, so that long padding is seen, too."""
SPEECH = Path(__file__).parent.parent / "assets" / "speech.flac"
"""Two seconds of a speech synthesizer: the beginning of the repository's examples/sample.wav."""


def compute_padding(
    model: Whisper,
    recordings: Sequence[Samples] | None = None,
    *,
    stride: int = STRIDE,
    tail: int = TAIL,
) -> Padding:
    """Constants for a model that was trained on 30 s.

    Args:
        model: encodes `PIECES` of each recording, in full context.
        recordings: of speech, mono at 16 kHz (n,); None for the one that comes with the package.
        stride: encoder positions (20 ms) that one constant key stands for.
        tail: positions of padding behind a clip that the decoder attends to.

    Raises:
        ValueError: no recordings, or stride or tail do not fit.
    """
    if recordings is None:
        recordings = [load_audio(SPEECH)]
    pieces = [samples[: round(s * SAMPLE_RATE)] for samples in recordings for s in PIECES]
    features = [LogMelSpectrogram(piece, model.config.n_mels) for piece in pieces]
    return calibrate(
        model.encoder,
        [mel.window(0) for mel in features],
        [mel.n_frames for mel in features],
        stride=stride,
        tail=tail,
    )


def save_padding(path: Path, padding: Padding, n_recordings: int) -> None:
    """Writes constants, which are averages over so many recordings."""
    arrays = {"keys": padding.keys, "values": padding.values, "states": padding.states}
    tensors = {name: array.astype(mx.float16) for name, array in arrays.items()}
    metadata = {"format": PADDING_FORMAT, "clips": str(n_recordings)}
    metadata |= {"stride": str(padding.stride), "tail": str(padding.tail)}
    with atomic_file(path) as temporary, temporary.open("wb") as file:
        mx.save_safetensors(file, tensors, metadata)
