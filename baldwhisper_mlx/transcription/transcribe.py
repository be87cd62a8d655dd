"""`transcribe` and `transcribe_iter`: recordings of any length, at once or segment by segment."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
import numpy.typing as npt

from baldwhisper_mlx.checkpoint.load import LoadedModel
from baldwhisper_mlx.output.transcript import Transcript
from baldwhisper_mlx.transcription.inputs import model_of, samples_of
from baldwhisper_mlx.transcription.options import TranscribeOptions, takes_options
from baldwhisper_mlx.transcription.stream import TranscriptStream

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from baldwhisper_mlx.transcription.options import TranscribeKeywords


@takes_options
def transcribe(
    audio: str | Path | BinaryIO | npt.NDArray[np.float32],
    model: LoadedModel | str | Path | None = None,
    **options: Unpack[TranscribeKeywords],
) -> Transcript:
    """Transcribes a recording of any length; threads with the same model wait for each other.

    Args:
        audio: a file, a binary stream, or samples at 16 kHz: floats with full scale at 1.0, or
            int16, (n,), (n, channels) or (channels, n), as an array, a tensor or a list.
        model: from `load_model`, or what that takes; the last one so named stays in memory. By
            default the English model that comes with the package.
        **options: see `TranscribeOptions`.

    Returns:
        Text, segments with times in seconds, language, duration.

    Raises:
        FileNotFoundError, ValueError: see `load_audio`, `load_model` and `TranscribeOptions`;
            also for a language the model does not know. TypeError: `audio` is something else, or
            there is no such option.
        RuntimeError: the process was forked after the model had been loaded.
        FloatingPointError: NaN or infinite logits.

    Example:
        >>> transcribe("talk.mp3", language="en", word_timestamps=True).text
    """
    chosen = TranscribeOptions(**options)
    samples, loaded = samples_of(audio), model_of(model)
    return TranscriptStream(samples, loaded, chosen).transcript()


@takes_options
def transcribe_iter(
    audio: str | Path | BinaryIO | npt.NDArray[np.float32],
    model: LoadedModel | str | Path | None = None,
    **options: Unpack[TranscribeKeywords],
) -> TranscriptStream:
    """Transcribes a recording segment by segment, as they are asked for.

    The segments are those of `transcribe`; with `batch_size` they come in groups. Audio, model and
    options are loaded and checked at once, everything else happens while the caller iterates.

    Args:
        audio: as for `transcribe`.
        model: as for `transcribe`.
        **options: see `TranscribeOptions`.

    Returns:
        An iterator over finished segments; its method `transcript` returns the whole.

    Raises:
        FileNotFoundError, ValueError, TypeError, RuntimeError: as `transcribe`.
        FloatingPointError: NaN or infinite logits, while the caller iterates.

    Example:
        >>> for segment in transcribe_iter("talk.mp3", language="en"):
        ...     print(segment.start, segment.text)
    """
    chosen = TranscribeOptions(**options)
    return TranscriptStream(samples_of(audio), model_of(model), chosen)
