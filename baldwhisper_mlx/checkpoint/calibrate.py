"""Gives a model folder the constants of the padded audio context."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from baldwhisper_mlx.audio.buffer import Samples
from baldwhisper_mlx.checkpoint.load import load_model
from baldwhisper_mlx.checkpoint.padding_file import compute_padding, save_padding
from baldwhisper_mlx.config import PADDING_FILE
from baldwhisper_mlx.model.calibration import STRIDE, TAIL


def write_padding(
    folder: Path,
    recordings: Sequence[Samples] | None = None,
    *,
    stride: int = STRIDE,
    tail: int = TAIL,
) -> Path:
    """Computes the constants of the model in a folder, and stores them beside it.

    Args:
        folder: an exported model that was trained on 30 s.
        recordings: a few of speech, mono at 16 kHz (n,), whose beginnings are used; None for the
            one that comes with the package.
        stride: encoder positions (20 ms) that one constant key stands for.
        tail: positions of padding behind a clip that the decoder attends to.

    Returns:
        The file.

    Raises:
        ValueError: no recordings, stride or tail do not fit, or another audio context.
    """
    model = load_model(folder, audio_context="full").model
    padding = compute_padding(model, recordings, stride=stride, tail=tail)
    n_recordings = 1 if recordings is None else len(recordings)
    save_padding(folder / PADDING_FILE, padding, n_recordings)
    return folder / PADDING_FILE
