"""`detect_language`: the language of a recording, from a few windows with speech, or of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from baldwhisper_mlx.audio.buffer import Samples
from baldwhisper_mlx.audio.chunking import Span
from baldwhisper_mlx.audio.features import N_FRAMES
from baldwhisper_mlx.audio.vad import first_speech
from baldwhisper_mlx.checkpoint.load import LoadedModel
from baldwhisper_mlx.config import HOP_LENGTH, SAMPLE_RATE
from baldwhisper_mlx.transcription.inputs import model_of, samples_of
from baldwhisper_mlx.transcription.language import NEAR, language_probabilities, only_language

WINDOW = N_FRAMES * HOP_LENGTH
"""Samples of a window, which Whisper encodes at once: 30 s."""


def detect_language(
    audio: str | Path | BinaryIO | npt.NDArray[np.float32],
    model: LoadedModel | str | Path | None = None,
    *,
    windows: int = 3,
    languages: Sequence[str] | None = None,
) -> dict[str, float]:
    """The probability that each language is spoken in a recording, the most probable first.

    Args:
        audio: as for `transcribe`.
        model: as for `transcribe`.
        windows: how many windows of 30 s, spread over the recording, are averaged.
        languages: codes or English names to choose from; None for all that the model knows.

    Returns:
        Language code to probability, of the windows with speech: empty if nobody speaks. If there
        is one language only to choose from, that one with a probability of 1.

    Raises:
        FileNotFoundError, ValueError, RuntimeError, FloatingPointError: as `transcribe`.
    """
    if windows < 1:
        raise ValueError(f"windows must be at least 1, not {windows}")
    samples, loaded = samples_of(audio), model_of(model)
    if (code := only_language(loaded.tokenizer, languages)) is not None:
        return {code: 1.0}
    count = min(windows, max(1, -(-len(samples) // WINDOW)))
    starts = np.linspace(0, max(0, len(samples) - WINDOW), count).round().astype(int).tolist()
    parts = _parts_with_speech(
        [(start, min(start + WINDOW, len(samples))) for start in starts], samples
    )
    if not parts and (span := first_speech(samples)) is not None:
        parts = [samples[span[0] : span[0] + WINDOW]]
    if not parts:
        return {}
    with loaded.in_use():
        return language_probabilities(parts, loaded, languages)


@dataclass(frozen=True)
class WindowLanguage:
    """The languages of a window of a recording, in seconds from its start."""

    start: float
    end: float
    probabilities: dict[str, float]
    """Language code to probability, the most probable first; empty if nobody speaks."""


def detect_language_per_window(
    audio: str | Path | BinaryIO | npt.NDArray[np.float32],
    model: LoadedModel | str | Path | None = None,
    *,
    languages: Sequence[str] | None = None,
) -> list[WindowLanguage]:
    """The probability that each language is spoken in every 30 s of a recording.

    Args:
        audio: as for `transcribe`.
        model: as for `transcribe`.
        languages: codes or English names to choose from; None for all that the model knows.

    Returns:
        One for each 30 s; the last one may be shorter.

    Raises:
        FileNotFoundError, ValueError, RuntimeError, FloatingPointError: as `transcribe`.

    Example:
        >>> windows = detect_language_per_window("talk.mp3")
        >>> [next(iter(window.probabilities), None) for window in windows]
    """
    samples, loaded = samples_of(audio), model_of(model)
    loaded.tokenizer.candidates(languages)
    found = []
    with loaded.in_use():
        for start in range(0, len(samples), WINDOW):
            end = min(start + WINDOW, len(samples))
            parts = _parts_with_speech([(start, end)], samples)
            probabilities = language_probabilities(parts, loaded, languages) if parts else {}
            found.append(WindowLanguage(start / SAMPLE_RATE, end / SAMPLE_RATE, probabilities))
    return found


def common_language(
    samples: Samples,
    stretches: Sequence[Span],
    loaded: LoadedModel,
    languages: Sequence[str] | None = None,
) -> str:
    """The language of a recording, from the first 30 s of the first three stretches with speech.

    Args:
        samples: of the recording.
        stretches: at least one.
        loaded: from `load_model`.
        languages: codes or names to choose from; None for all that the model knows.
    """
    parts = _parts_with_speech(stretches, samples, most=3)
    if not parts:
        parts = [samples[start : min(end, start + WINDOW)] for start, end in stretches[:3]]
    return next(iter(language_probabilities(parts, loaded, languages)))


def _parts_with_speech(
    spans: Sequence[Span], samples: Samples, most: int | None = None
) -> list[Samples]:
    """The parts of a recording in which somebody speaks, each from the first speech on.

    Args:
        spans: of the parts.
        samples: of the recording.
        most: parts to return at most.
    """
    parts: list[Samples] = []
    for start, end in spans:
        if len(parts) == most:
            break
        if (speech := first_speech(samples[start:end])) is not None:
            begin = speech[0] if speech[0] >= NEAR * HOP_LENGTH else 0
            parts.append(samples[start + begin : min(end, start + begin + WINDOW)])
    return parts
