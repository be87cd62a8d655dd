"""`transcribe`: recordings of any length; and `detect_language`, which samples a few windows.

A recording is transcribed in one of three ways: sequentially, sequentially without the pauses
(`vad`), or in batches (`batch_size`).
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from baldwhisper_mlx.audio.buffer import Samples, check_samples
from baldwhisper_mlx.audio.chunking import Span, chunks_of, equal_parts, join_speech
from baldwhisper_mlx.audio.features import N_FRAMES
from baldwhisper_mlx.audio.load import load_audio
from baldwhisper_mlx.audio.vad import Speech, first_speech, speech_spans
from baldwhisper_mlx.checkpoint.load import LoadedModel, load_model
from baldwhisper_mlx.config import HOP_LENGTH, SAMPLE_RATE
from baldwhisper_mlx.decoding.result import DecodingResult
from baldwhisper_mlx.transcription.batched import transcribe_clips
from baldwhisper_mlx.transcription.fallback import TEMPERATURES
from baldwhisper_mlx.transcription.language import (
    NEAR,
    LanguageWarning,
    doubts,
    language_probabilities,
    only_language,
)
from baldwhisper_mlx.transcription.options import TranscribeOptions
from baldwhisper_mlx.transcription.retiming import retimed, within_audio
from baldwhisper_mlx.transcription.segments import Segment, Transcript
from baldwhisper_mlx.transcription.sequential import transcribe_sequentially

WINDOW = N_FRAMES * HOP_LENGTH
"""Samples of a window, which Whisper encodes at once: 30 s."""


def transcribe(
    audio: str | Path | BinaryIO | npt.NDArray[np.float32],
    model: LoadedModel | str | Path | None = None,
    *,
    language: str | None = None,
    task: str = "transcribe",
    initial_prompt: str | None = None,
    temperature: float | Sequence[float] = TEMPERATURES,
    condition_on_previous_text: bool = True,
    without_timestamps: bool = False,
    word_timestamps: bool = False,
    compression_ratio_threshold: float | None = 2.4,
    logprob_threshold: float | None = -1.0,
    no_speech_threshold: float | None = 0.6,
    vad: bool = False,
    batch_size: int = 1,
    on_progress: Callable[[float, float], None] | None = None,
) -> Transcript:
    """Transcribes a recording of any length; threads with the same model wait for each other.

    Args:
        audio: a file, a binary stream, or samples at 16 kHz: floats with full scale at 1.0, or
            int16, (n,), (n, channels) or (channels, n), as an array, a tensor or a list.
        model: from `load_model`, or what that takes; the last one so named stays in memory. By
            default the English model that comes with the package.
        language: code or English name; None to detect it where somebody first speaks.
        task: "transcribe", or "translate" into English.
        initial_prompt: text that precedes the recording, or every stretch: names, spelling.
        temperature: of the sampling, 0 or more; the next of several if an output is poor.
        condition_on_previous_text: whether windows are; in batches none is.
        without_timestamps: one segment per window, decoded without timestamps.
        word_timestamps: the start and end of every word (`Segment.words`).
        compression_ratio_threshold: text that zlib shrinks by more than this is repetitive; so
            is, unless this is None, a phrase three times in a row.
        logprob_threshold: below this mean log-probability (nats) an output is improbable.
        no_speech_threshold: above this probability of no speech, what is improbable is silence.
        vad: transcribe only where Silero's detector finds speech.
        batch_size: stretches decoded together; the recording is cut where it is quiet.
        on_progress: called after every window with the seconds of audio done and in all.

    Returns:
        Text, segments with times in seconds, language, duration.

    Raises:
        FileNotFoundError, ValueError: see `load_audio`, `load_model` and `TranscribeOptions`;
            also for a language the model does not know. TypeError: `audio` is something else.
        RuntimeError: the process was forked after the model had been loaded.
        FloatingPointError: NaN or infinite logits.
    """
    options = TranscribeOptions(
        language=language, task=task, initial_prompt=initial_prompt, temperature=temperature,
        condition_on_previous_text=condition_on_previous_text,
        without_timestamps=without_timestamps, word_timestamps=word_timestamps,
        compression_ratio_threshold=compression_ratio_threshold,
        logprob_threshold=logprob_threshold, no_speech_threshold=no_speech_threshold,
        vad=vad, batch_size=batch_size, on_progress=on_progress,
    )  # fmt: skip
    samples, loaded = _samples_of(audio), _loaded(model)
    with loaded.in_use():
        return _transcribe(samples, loaded, options)


def detect_language(
    audio: str | Path | BinaryIO | npt.NDArray[np.float32],
    model: LoadedModel | str | Path | None = None,
    *,
    windows: int = 3,
) -> dict[str, float]:
    """The probability that each language is spoken in a recording, the most probable first.

    Args:
        audio: as for `transcribe`.
        model: as for `transcribe`.
        windows: how many windows of 30 s, spread over the recording, are averaged.

    Returns:
        Language code to probability, of the windows with speech: empty if nobody speaks. For a
        model that knows one language only, that one with a probability of 1.

    Raises:
        FileNotFoundError, ValueError, RuntimeError, FloatingPointError: as `transcribe`.
    """
    if windows < 1:
        raise ValueError(f"windows must be at least 1, not {windows}")
    samples, loaded = _samples_of(audio), _loaded(model)
    if (code := only_language(loaded.tokenizer)) is not None:
        return {code: 1.0}
    count = min(windows, max(1, -(-len(samples) // WINDOW)))
    starts = np.linspace(0, max(0, len(samples) - WINDOW), count).round().astype(int).tolist()
    parts = _spoken([(start, min(start + WINDOW, len(samples))) for start in starts], samples)
    if not parts and (span := first_speech(samples)) is not None:
        parts = [samples[span[0] : span[0] + WINDOW]]
    if not parts:
        return {}
    with loaded.in_use():
        return language_probabilities(parts, loaded)


def _spoken(spans: Sequence[Span], samples: Samples, most: int | None = None) -> list[Samples]:
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


def _samples_of(audio: str | Path | BinaryIO | npt.NDArray[np.float32]) -> Samples:
    """Checked samples; those of a file are checked as they are decoded."""
    if isinstance(audio, np.ndarray) or not (
        isinstance(audio, (str, Path)) or hasattr(audio, "read")
    ):
        return check_samples(audio)
    return load_audio(audio)


def _loaded(model: LoadedModel | str | Path | None) -> LoadedModel:
    return model if isinstance(model, LoadedModel) else _cached_model(model)


@lru_cache(maxsize=1)
def _cached_model(path_or_hub_id: str | Path | None) -> LoadedModel:
    return load_model(path_or_hub_id)


def _transcribe(samples: Samples, loaded: LoadedModel, options: TranscribeOptions) -> Transcript:
    """Chooses one of the three ways, and warns of a language that the model may not know."""
    way = transcribe_sequentially
    if options.batch_size > 1:
        way = _in_batches
    elif options.vad:
        way = _without_pauses
    first_attempts: list[DecodingResult] = []
    transcript = way(samples, loaded, options, first_attempts)
    if doubt := doubts(first_attempts, loaded.tokenizer):
        warnings.warn(doubt, LanguageWarning, stacklevel=3)
    return transcript


def _without_pauses(
    samples: Samples,
    loaded: LoadedModel,
    options: TranscribeOptions,
    first_attempts: list[DecodingResult],
) -> Transcript:
    """Transcribes the speech as one recording, and maps its times back to the whole."""
    duration = len(samples) / SAMPLE_RATE
    joined = join_speech(samples, speech_spans(samples), Speech().pad)
    if not joined.spans:
        return _empty(samples, loaded, options)

    def progress(done: float, _total: float) -> None:
        options.report(joined.restore(done, is_end=True), duration)

    inner = dataclasses.replace(options, on_progress=progress)
    transcript = transcribe_sequentially(joined.samples, loaded, inner, first_attempts)
    segments = [retimed(segment, joined.restore) for segment in transcript.segments]
    return dataclasses.replace(
        transcript, segments=within_audio(segments, duration), duration=duration
    )


def _in_batches(
    samples: Samples,
    loaded: LoadedModel,
    options: TranscribeOptions,
    first_attempts: list[DecodingResult],
) -> Transcript:
    """Transcribes `batch_size` stretches in lockstep: of speech, or equal parts of everything."""
    batch_size = options.batch_size
    if options.vad:
        stretches = chunks_of(samples, speech_spans(samples), WINDOW)
    else:
        stretches = equal_parts(samples, min(batch_size, -(-len(samples) // WINDOW)))
    if not stretches:
        return _empty(samples, loaded, options)
    language = options.language or only_language(loaded.tokenizer)
    if language is None:
        language = _common_language(samples, stretches, loaded)
    # The text before a stretch is not there yet while the stretches are decoded together.
    inner = dataclasses.replace(options, language=language, condition_on_previous_text=False)
    duration, length = len(samples) / SAMPLE_RATE, sum(end - start for start, end in stretches)
    texts: list[str] = []
    segments: list[Segment] = []
    done = 0.0

    def progress(seconds: float) -> None:
        options.report((done + seconds) * SAMPLE_RATE / length * duration, duration)

    for first in range(0, len(stretches), batch_size):
        group = stretches[first : first + batch_size]
        clips = [samples[start:end] for start, end in group]
        transcripts = transcribe_clips(
            clips, loaded, inner, first_attempts=first_attempts, on_window=progress
        )
        for (start, _), transcript in zip(group, transcripts, strict=True):
            for segment in transcript.segments:
                moved = retimed(segment, partial(_later, start / SAMPLE_RATE))
                segments.append(dataclasses.replace(moved, id=len(segments)))
            texts.append(transcript.text)
        done += sum(transcript.duration for transcript in transcripts)
    spoken = options.language is not None or bool(segments)
    code = transcripts[0].language if spoken else None
    return Transcript("".join(texts), within_audio(segments, duration), code, duration)


def _common_language(samples: Samples, stretches: Sequence[Span], loaded: LoadedModel) -> str:
    """The language of a recording, from the first 30 s of the first three stretches with speech."""
    parts = _spoken(stretches, samples, most=3)
    if not parts:
        parts = [samples[start : min(end, start + WINDOW)] for start, end in stretches[:3]]
    return next(iter(language_probabilities(parts, loaded)))


def _later(offset: float, seconds: float, *, is_end: bool) -> float:
    return offset + seconds


def _empty(samples: Samples, loaded: LoadedModel, options: TranscribeOptions) -> Transcript:
    """The transcript of a recording without speech."""
    named = options.language
    language = None if named is None else loaded.tokenizer.to_language(named)
    return Transcript("", (), language, len(samples) / SAMPLE_RATE)
