"""Whisper and BaldWhisper on Apple's MLX: checkpoint folder and audio file in, text out.

    >>> import baldwhisper_mlx
    >>> model = baldwhisper_mlx.load_model()  # or load_model("models/whisper-base")
    >>> baldwhisper_mlx.transcribe("talk.mp3", model).text

The way from audio to text, in the order to read it: audio/load.py, audio/features.py,
model/whisper.py, decoding/decoder.py, transcription/sequential.py.

Importing the package is cheap: MLX and the rest are imported with the first attribute that needs
them. On Linux it prepares for MLX to get a fast BLAS (ops/blas.py), so import it before MLX.
"""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any

from baldwhisper_mlx._version import __version__

if TYPE_CHECKING:
    from baldwhisper_mlx.audio.vad import VadOptions
    from baldwhisper_mlx.checkpoint.load import LoadedModel, load_model
    from baldwhisper_mlx.output.segment import Segment, Word
    from baldwhisper_mlx.output.transcript import Transcript
    from baldwhisper_mlx.transcription.detect_language import (
        WindowLanguage,
        detect_language,
        detect_language_per_window,
    )
    from baldwhisper_mlx.transcription.live import LiveTranscriber
    from baldwhisper_mlx.transcription.live_events import Draft, SpeechStarted, Utterance
    from baldwhisper_mlx.transcription.live_policies import AlignAtt, LocalAgreement
    from baldwhisper_mlx.transcription.stream import TranscriptStream
    from baldwhisper_mlx.transcription.transcribe import transcribe, transcribe_iter

__all__ = [
    "AlignAtt",
    "Draft",
    "LiveTranscriber",
    "LoadedModel",
    "LocalAgreement",
    "Segment",
    "SpeechStarted",
    "Transcript",
    "TranscriptStream",
    "Utterance",
    "VadOptions",
    "WindowLanguage",
    "Word",
    "__version__",
    "detect_language",
    "detect_language_per_window",
    "load_model",
    "transcribe",
    "transcribe_iter",
]

_HOME = {
    "LoadedModel": "checkpoint.load",
    "load_model": "checkpoint.load",
    "WindowLanguage": "transcription.detect_language",
    "detect_language": "transcription.detect_language",
    "detect_language_per_window": "transcription.detect_language",
    "transcribe": "transcription.transcribe",
    "transcribe_iter": "transcription.transcribe",
    "Segment": "output.segment",
    "Transcript": "output.transcript",
    "TranscriptStream": "transcription.stream",
    "LiveTranscriber": "transcription.live",
    "Draft": "transcription.live_events",
    "SpeechStarted": "transcription.live_events",
    "Utterance": "transcription.live_events",
    "AlignAtt": "transcription.live_policies",
    "LocalAgreement": "transcription.live_policies",
    "VadOptions": "audio.vad",
    "Word": "output.segment",
}

if sys.platform == "linux":
    from baldwhisper_mlx.ops import blas

    blas.preload_with_mlx()


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
