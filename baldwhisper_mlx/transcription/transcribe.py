"""`transcribe`: recordings of any length, straight through, without silences, or in batches.

And `detect_language`, which listens to some of it only.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, BinaryIO

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from baldwhisper_mlx.audio.buffer import Samples, check_samples
from baldwhisper_mlx.audio.chunking import Span, chunks_of, equal_parts, join_speech
from baldwhisper_mlx.audio.features import N_FRAMES, LogMelSpectrogram
from baldwhisper_mlx.audio.load import load_audio
from baldwhisper_mlx.audio.vad import Speech, speech_spans
from baldwhisper_mlx.checkpoint.load import LoadedModel, load_model
from baldwhisper_mlx.config import SAMPLE_RATE
from baldwhisper_mlx.transcription.batched import transcribe_clips
from baldwhisper_mlx.transcription.fallback import TEMPERATURES
from baldwhisper_mlx.transcription.segments import Segment, Transcript, retimed
from baldwhisper_mlx.transcription.sequential import prepare

WINDOW = N_FRAMES * SAMPLE_RATE // 100
"""Samples that Whisper hears at once: 30 s."""


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
    """Transcribes a recording of any length.

    Args:
        audio: a file, a binary stream, or mono samples (n,) at 16 kHz, full scale at 1.0.
        model: from `load_model`, or what that takes; the last one so named stays in memory. By
            default the English model that comes with the package.
        language: code or English name; None to detect it in the first 30 s.
        task: "transcribe", or "translate" into English.
        initial_prompt: text before the recording, or before every stretch: names, spelling.
        temperature: of the sampling; the next of several is tried if an output repeats itself, or
            is unlikely.
        condition_on_previous_text: whether a window is told the text before it; in batches none is.
        without_timestamps: one segment a window, whose text carries no timestamps.
        word_timestamps: every word with its time (`Segment.words`).
        compression_ratio_threshold: an output that zlib shrinks more than this repeats itself; as
            does, unless this is None, one with a phrase three times over.
        logprob_threshold: an output of a mean log-probability below this is unlikely.
        no_speech_threshold: of no speech's probability; above it, what is unlikely is silence.
        vad: transcribe only where Silero's detector finds speech.
        batch_size: stretches decoded at once, cut where it is quiet.
        on_progress: called with the seconds of audio done and in all, after every window.

    Returns:
        Text, segments with times in seconds, language, duration.

    Raises:
        FileNotFoundError, ValueError: see `load_audio` and `load_model`; also for a language
            the model does not know, samples that are not a finite vector, and options out
            of range.
        FloatingPointError: the model produced NaN or infinite logits.
    """
    loaded = model if isinstance(model, LoadedModel) else _cached_model(model)
    samples = _samples_of(audio)
    return _dispatch(
        samples, loaded, initial_prompt, on_progress or (lambda _done, _all: None), vad, batch_size,
        language=language, task=task, temperature=temperature,
        condition_on_previous_text=condition_on_previous_text,
        without_timestamps=without_timestamps, word_timestamps=word_timestamps,
        compression_ratio_threshold=compression_ratio_threshold,
        logprob_threshold=logprob_threshold, no_speech_threshold=no_speech_threshold,
    )  # fmt: skip


def detect_language(
    audio: str | Path | BinaryIO | npt.NDArray[np.float32],
    model: LoadedModel | str | Path | None = None,
    *,
    windows: int = 3,
) -> dict[str, float]:
    """How likely each language is spoken in a recording, the likeliest first.

    Args:
        audio: as for `transcribe`.
        model: as for `transcribe`.
        windows: of 30 s, spread over the recording, whose probabilities are averaged.

    Returns:
        Language code to probability; of an English-only model, English alone.

    Raises:
        FileNotFoundError, ValueError, FloatingPointError: as `transcribe`.
    """
    if windows < 1:
        raise ValueError(f"windows must be at least 1, not {windows}")
    loaded = model if isinstance(model, LoadedModel) else _cached_model(model)
    samples = _samples_of(audio)
    if not loaded.tokenizer.is_multilingual:
        return {"en": 1.0}
    mel = LogMelSpectrogram(samples, loaded.config.n_mels)
    count = min(windows, max(1, -(-mel.n_frames // N_FRAMES)))
    starts = np.linspace(0, max(0, mel.n_frames - N_FRAMES), count).round().astype(int).tolist()
    sizes = [min(N_FRAMES, mel.n_frames - start) for start in starts]
    loaded.decoder.encode(mx.stack([mel.window(start) for start in starts]), sizes)
    languages = loaded.tokenizer.languages
    means = loaded.decoder.detect_language(list(languages.values())).mean(axis=0)
    order = np.argsort(-means, kind="stable")
    codes = list(languages)
    return {codes[i]: float(means[i]) for i in order}


def _samples_of(audio: str | Path | BinaryIO | npt.NDArray[np.float32]) -> Samples:
    """Checked samples; those of a file are checked as they are decoded."""
    return check_samples(audio) if isinstance(audio, np.ndarray) else load_audio(audio)


def _dispatch(
    samples: Samples,
    loaded: LoadedModel,
    prompt: str | None,
    on_progress: Callable[[float, float], None],
    vad: bool,
    batch_size: int,
    **options: Any,
) -> Transcript:
    """One of the three ways; `options` are those of `prepare`."""
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, not {batch_size}")
    if batch_size > 1:
        spans = speech_spans(samples) if vad else None
        options |= {"initial_prompt": prompt, "condition_on_previous_text": False}
        return _in_batches(samples, loaded, batch_size, spans, options, on_progress)
    if vad:
        return _without_silence(samples, loaded, prompt, options, on_progress)
    return prepare(samples, loaded, **options)(prompt, on_progress)


def _without_silence(
    samples: Samples,
    loaded: LoadedModel,
    prompt: str | None,
    options: dict[str, Any],
    on_progress: Callable[[float, float], None],
) -> Transcript:
    """The stretches of speech as one recording, and its times those of the whole again."""
    duration = len(samples) / SAMPLE_RATE
    joined = join_speech(samples, speech_spans(samples), Speech().pad)
    if not joined.spans:
        return _nothing(samples, options["language"], loaded)

    def progress(done: float, _all: float) -> None:
        on_progress(joined.restore(done, is_end=True), duration)

    found = prepare(joined.samples, loaded, **options)(prompt, progress)
    segments = [retimed(segment, joined.restore) for segment in found.segments]
    return Transcript(found.text, tuple(segments), found.language, duration)


def _in_batches(
    samples: Samples,
    loaded: LoadedModel,
    batch_size: int,
    spans: Sequence[Span] | None,
    options: dict[str, Any],
    on_progress: Callable[[float, float], None],
) -> Transcript:
    """`batch_size` stretches at once, in step: of speech, or else equal parts of everything."""
    if spans is None:
        stretches = equal_parts(samples, min(batch_size, -(-len(samples) // WINDOW)))
    else:
        stretches = chunks_of(samples, spans, WINDOW)
    if not stretches:
        return _nothing(samples, options["language"], loaded)
    if options["language"] is None:
        options = options | {"language": _common_language(samples, stretches, loaded)}
    duration, length = len(samples) / SAMPLE_RATE, sum(end - start for start, end in stretches)
    texts: list[str] = []
    segments: list[Segment] = []
    done = 0.0

    def progress(seconds: float) -> None:
        on_progress((done + seconds) * SAMPLE_RATE / length * duration, duration)

    for first in range(0, len(stretches), batch_size):
        group = stretches[first : first + batch_size]
        clips = [samples[start:end] for start, end in group]
        found = transcribe_clips(clips, loaded, on_window=progress, **options)
        for (start, _), transcript in zip(group, found, strict=True):
            for segment in transcript.segments:
                moved = retimed(segment, partial(_later, start / SAMPLE_RATE))
                segments.append(dataclasses.replace(moved, id=len(segments)))
            texts.append(transcript.text)
        done += sum(transcript.duration for transcript in found)
    return Transcript("".join(texts), tuple(segments), found[0].language, duration)


def _common_language(samples: Samples, stretches: Sequence[Span], loaded: LoadedModel) -> str:
    """The language of a recording, from the first 30 s of its first three stretches."""
    heard = [samples[start : min(end, start + WINDOW)] for start, end in stretches[:3]]
    return next(iter(detect_language(np.concatenate(heard), loaded, windows=len(heard))))


def _later(offset: float, seconds: float, *, is_end: bool) -> float:
    return offset + seconds


def _nothing(samples: Samples, language: str | None, loaded: LoadedModel) -> Transcript:
    code = "en" if language is None else loaded.tokenizer.to_language(language)
    return Transcript("", (), code, len(samples) / SAMPLE_RATE)


@lru_cache(maxsize=1)
def _cached_model(path_or_hub_id: str | Path | None) -> LoadedModel:
    return load_model(path_or_hub_id)
