"""The three ways to transcribe a recording: sequentially, without its pauses, and in batches."""

from __future__ import annotations

import dataclasses
import warnings
from functools import partial

from baldwhisper_mlx.audio.buffer import Samples
from baldwhisper_mlx.audio.chunking import chunks_of, equal_parts, join_speech
from baldwhisper_mlx.audio.vad import Speech, speech_spans
from baldwhisper_mlx.checkpoint.load import LoadedModel
from baldwhisper_mlx.config import SAMPLE_RATE
from baldwhisper_mlx.decoding.decoder import DecodingResult
from baldwhisper_mlx.transcription.batched import transcribe_clips
from baldwhisper_mlx.transcription.detect_language import WINDOW, common_language
from baldwhisper_mlx.transcription.language import LanguageWarning, doubts, only_language
from baldwhisper_mlx.transcription.options import TranscribeOptions
from baldwhisper_mlx.transcription.retiming import retimed, within_audio
from baldwhisper_mlx.transcription.segments import Segment, Transcript, main_language
from baldwhisper_mlx.transcription.sequential import transcribe_sequentially


def transcribe_recording(
    samples: Samples, loaded: LoadedModel, options: TranscribeOptions
) -> Transcript:
    """Transcribes a recording in the way that the options ask for.

    Warns if the audio may be in a language that the model does not know.

    Args:
        samples: mono at 16 kHz (n,), full scale at 1.0.
        loaded: from `load_model`.
        options: see `TranscribeOptions`.

    Raises:
        ValueError, FloatingPointError: as `transcribe_sequentially`.
    """
    if options.multilingual:
        loaded.tokenizer.check_multilingual()
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
    # The text before a stretch is not there yet while the stretches are decoded together.
    inner = dataclasses.replace(options, condition_on_previous_text=False)
    if not options.multilingual and options.language is None:
        language = only_language(loaded.tokenizer, options.languages)
        if language is None:
            language = common_language(samples, stretches, loaded, options.languages)
        inner = dataclasses.replace(inner, language=language, languages=None)
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
    code = (main_language(segments) or transcripts[0].language) if spoken else None
    return Transcript("".join(texts), within_audio(segments, duration), code, duration)


def _later(offset: float, seconds: float, *, is_end: bool) -> float:
    return offset + seconds


def _empty(samples: Samples, loaded: LoadedModel, options: TranscribeOptions) -> Transcript:
    """The transcript of a recording without speech."""
    named = options.language
    language = None if named is None else loaded.tokenizer.to_language(named)
    return Transcript("", (), language, len(samples) / SAMPLE_RATE)
