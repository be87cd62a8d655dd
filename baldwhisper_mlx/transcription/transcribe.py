"""`transcribe`: recordings of any length; and `detect_language`, which samples a few windows.

A recording is transcribed in one of three ways: sequentially, sequentially without the pauses
(`vad`), or in batches (`batch_size`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import BinaryIO

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from baldwhisper_mlx.audio.buffer import Samples, check_samples
from baldwhisper_mlx.audio.chunking import Span, chunks_of, equal_parts, join_speech
from baldwhisper_mlx.audio.features import N_FRAMES, LogMelSpectrogram
from baldwhisper_mlx.audio.load import load_audio
from baldwhisper_mlx.audio.vad import Speech, speech_spans
from baldwhisper_mlx.checkpoint.load import LoadedModel, load_model
from baldwhisper_mlx.config import HOP_LENGTH, SAMPLE_RATE
from baldwhisper_mlx.transcription.batched import transcribe_clips
from baldwhisper_mlx.transcription.fallback import TEMPERATURES
from baldwhisper_mlx.transcription.options import TranscribeOptions
from baldwhisper_mlx.transcription.segments import Segment, Transcript, retimed
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
        audio: a file, a binary stream, or mono samples (n,) at 16 kHz, full scale at 1.0.
        model: from `load_model`, or what that takes, of which the last stays in memory.
        language: code or English name; None to detect it in the first 30 s.
        task: "transcribe", or "translate" into English.
        initial_prompt: text that precedes the recording, or every stretch: names, spelling.
        temperature: of the sampling, 0 or more; the next of several is used if an output is
            repetitive or improbable.
        condition_on_previous_text: whether a window is conditioned on the previous text; in
            batches none is.
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
            also for a language the model does not know.
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
        Language code to probability; for an English-only model, {"en": 1.0}.

    Raises:
        FileNotFoundError, ValueError, RuntimeError, FloatingPointError: as `transcribe`.
    """
    if windows < 1:
        raise ValueError(f"windows must be at least 1, not {windows}")
    samples, loaded = _samples_of(audio), _loaded(model)
    if not loaded.tokenizer.is_multilingual:
        return {"en": 1.0}
    with loaded.in_use():
        return _probabilities(samples, loaded, windows)


def _probabilities(samples: Samples, loaded: LoadedModel, windows: int) -> dict[str, float]:
    """Language code to probability, averaged over windows."""
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


def _loaded(model: LoadedModel | str | Path | None) -> LoadedModel:
    return model if isinstance(model, LoadedModel) else _cached_model(model)


@lru_cache(maxsize=1)
def _cached_model(path_or_hub_id: str | Path | None) -> LoadedModel:
    return load_model(path_or_hub_id)


def _transcribe(samples: Samples, loaded: LoadedModel, options: TranscribeOptions) -> Transcript:
    """Chooses one of the three ways."""
    if options.batch_size > 1:
        return _in_batches(samples, loaded, options)
    if options.vad:
        return _without_pauses(samples, loaded, options)
    return transcribe_sequentially(samples, loaded, options)


def _without_pauses(
    samples: Samples, loaded: LoadedModel, options: TranscribeOptions
) -> Transcript:
    """Transcribes the speech as one recording, and maps its times back to the whole."""
    duration = len(samples) / SAMPLE_RATE
    joined = join_speech(samples, speech_spans(samples), Speech().pad)
    if not joined.spans:
        return _empty(samples, loaded, options)

    def progress(done: float, _total: float) -> None:
        options.report(joined.restore(done, is_end=True), duration)

    inner = dataclasses.replace(options, on_progress=progress)
    transcript = transcribe_sequentially(joined.samples, loaded, inner)
    segments = [retimed(segment, joined.restore) for segment in transcript.segments]
    return Transcript(transcript.text, tuple(segments), transcript.language, duration)


def _in_batches(samples: Samples, loaded: LoadedModel, options: TranscribeOptions) -> Transcript:
    """Transcribes `batch_size` stretches in lockstep: of speech, or equal parts of everything."""
    batch_size = options.batch_size
    if options.vad:
        stretches = chunks_of(samples, speech_spans(samples), WINDOW)
    else:
        stretches = equal_parts(samples, min(batch_size, -(-len(samples) // WINDOW)))
    if not stretches:
        return _empty(samples, loaded, options)
    language = options.language
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
        transcripts = transcribe_clips(clips, loaded, inner, on_window=progress)
        for (start, _), transcript in zip(group, transcripts, strict=True):
            for segment in transcript.segments:
                moved = retimed(segment, partial(_later, start / SAMPLE_RATE))
                segments.append(dataclasses.replace(moved, id=len(segments)))
            texts.append(transcript.text)
        done += sum(transcript.duration for transcript in transcripts)
    return Transcript("".join(texts), tuple(segments), transcripts[0].language, duration)


def _common_language(samples: Samples, stretches: Sequence[Span], loaded: LoadedModel) -> str:
    """The language of a recording, from the first 30 s of its first three stretches."""
    openings = [samples[start : min(end, start + WINDOW)] for start, end in stretches[:3]]
    return next(iter(detect_language(np.concatenate(openings), loaded, windows=len(openings))))


def _later(offset: float, seconds: float, *, is_end: bool) -> float:
    return offset + seconds


def _empty(samples: Samples, loaded: LoadedModel, options: TranscribeOptions) -> Transcript:
    """The transcript of a recording without speech."""
    named = options.language
    language = "en" if named is None else loaded.tokenizer.to_language(named)
    return Transcript("", (), language, len(samples) / SAMPLE_RATE)
