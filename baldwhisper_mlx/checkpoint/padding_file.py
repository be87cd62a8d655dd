"""padding.safetensors: the constants of a model folder's padded audio context.

Tensors `keys` and `values` (layers, H, n, head_dim) and `states` (N, d), see model/padding.py, in
float16, and the settings as metadata. docs/format.md describes it. `load_model` reads it, and
computes the constants from the speech that comes with the package where a folder has none.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import mlx.core as mx

from baldwhisper_mlx.audio.buffer import Samples
from baldwhisper_mlx.audio.features import LogMelSpectrogram
from baldwhisper_mlx.audio.load import load_audio
from baldwhisper_mlx.checkpoint.files import PADDING_FORMAT, check_tensors, read_tensor_header
from baldwhisper_mlx.config import AUDIO_BUCKET, SAMPLE_RATE
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


def read_padding(path: Path, model: Whisper) -> Padding:
    """Reads `padding.safetensors` for a model.

    Raises:
        ValueError: damaged, of another format, or made for another model.
    """
    config = model.config
    if config.audio_context != "full":
        raise ValueError(
            f"{path}: the model was trained for a {config.audio_context} audio context, which "
            "needs no padding; delete the file"
        )
    read_tensor_header(path)
    try:
        tensors, metadata = cast(tuple[dict[str, mx.array], dict[str, Any]],
                                 mx.load(str(path), return_metadata=True))  # fmt: skip
        format_, stride, tail = (metadata.get(key) for key in ("format", "stride", "tail"))
        stride, tail = int(stride or 0), int(tail or 0)
    except (RuntimeError, ValueError) as error:
        raise ValueError(f"{path}: damaged ({error})") from None
    if format_ != PADDING_FORMAT:
        raise ValueError(f"{path}: format {format_!r} instead of {PADDING_FORMAT!r}")
    if not 1 <= stride <= AUDIO_BUCKET or tail < 1:
        raise ValueError(f"{path}: bad metadata: stride {stride}, tail {tail}")
    heads, width = config.n_audio_head, config.n_audio_state
    n_keys = -(-config.n_audio_ctx // stride)
    keys = (config.n_audio_layer, heads, n_keys, width // heads)
    expected = {"keys": keys, "values": keys, "states": (config.n_audio_ctx, width)}
    check_tensors(str(path), expected, {name: x.shape for name, x in tensors.items()})
    dtype = model.encoder.ln_post.weight.dtype
    cast_tensors = {name: x.astype(dtype) for name, x in tensors.items()}
    mx.eval(cast_tensors)
    return Padding(**cast_tensors, stride=stride, tail=tail)
