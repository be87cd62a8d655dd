"""The three ways to transcribe a recording: sequentially, without its pauses, and in batches.

Each is a generator of finished segments that returns the transcript. Between two segments it needs
nothing that the model holds, so that others can use the model.
"""

from __future__ import annotations

import dataclasses
import itertools
import sys
import warnings
from collections.abc import Generator
from functools import partial

import numpy as np

from baldwhisper_mlx.audio.buffer import Samples
from baldwhisper_mlx.audio.chunking import Span, chunks_of, equal_parts, join_speech
from baldwhisper_mlx.audio.vad import speech_spans
from baldwhisper_mlx.checkpoint.load import LoadedModel
from baldwhisper_mlx.config import HOP_LENGTH, SAMPLE_RATE
from baldwhisper_mlx.decoding.result import DecodingResult
from baldwhisper_mlx.output.segment import Segment
from baldwhisper_mlx.output.transcript import Transcript
from baldwhisper_mlx.transcription.batched import transcribe_clips
from baldwhisper_mlx.transcription.detect_language import WINDOW, common_language
from baldwhisper_mlx.transcription.language import LanguageWarning, doubts, only_language
from baldwhisper_mlx.transcription.options import OptionWarning, TranscribeOptions
from baldwhisper_mlx.transcription.prompts import GivenText
from baldwhisper_mlx.transcription.ranges import frames_of, ranges_behind
from baldwhisper_mlx.transcription.retiming import retimed, within_audio
from baldwhisper_mlx.transcription.segments import main_language, numbered
from baldwhisper_mlx.transcription.sequential import transcribe_sequentially


def transcribe_recording(
    samples: Samples,
    loaded: LoadedModel,
    options: TranscribeOptions,
    *,
    warn_of_options: bool = True,
) -> Generator[Segment, None, Transcript]:
    """Transcribes a recording in the way that the options ask for, and yields finished segments.

    Warns at the end if the audio may be in a language that the model does not know.

    Args:
        samples: mono at 16 kHz (n,), full scale at 1.0.
        loaded: from `load_model`.
        options: see `TranscribeOptions`.
        warn_of_options: whether to warn of options that can be followed only in part.

    Returns:
        The transcript, of the segments that were yielded.

    Raises:
        ValueError, FloatingPointError: as `transcribe_sequentially`.
    """
    way = transcribe_sequentially
    if options.batch_size > 1:
        way = _in_batches
    elif options.vad:
        way = _without_pauses
    unmet = _unmet(len(samples) / SAMPLE_RATE, loaded, options) if warn_of_options else ()
    for message in unmet:
        warnings.warn(message, OptionWarning, stacklevel=_level_of_caller())
    first_attempts: list[DecodingResult] = []
    transcript = yield from way(samples, loaded, options, first_attempts)
    if doubt := doubts(first_attempts, loaded.tokenizer):
        warnings.warn(doubt, LanguageWarning, stacklevel=_level_of_caller())
    return transcript


def _level_of_caller() -> int:
    """How many frames above the calling function the code is that uses this package."""
    level = 1
    while sys._getframe(level).f_globals.get("__name__", "").startswith(f"{__package__}."):
        level += 1
    return level


def _unmet(duration: float, loaded: LoadedModel, options: TranscribeOptions) -> tuple[str, ...]:
    """What can be followed only in part: texts too long for the context, ranges behind the end.

    Args:
        duration: of the recording, in seconds.
        loaded: from `load_model`.
        options: see `TranscribeOptions`.
    """
    return GivenText.of(loaded, options).cut + ranges_behind(options.ranges or (), duration)


def _without_pauses(
    samples: Samples,
    loaded: LoadedModel,
    options: TranscribeOptions,
    first_attempts: list[DecodingResult],
) -> Generator[Segment, None, Transcript]:
    """Transcribes the speech as one recording, and maps its times back to the whole."""
    duration = len(samples) / SAMPLE_RATE
    speech = _speech(samples, options)
    joined = join_speech(samples, [span for spans in speech for span in spans], options.speech.pad)
    if not joined.spans:
        return _empty(samples, loaded, options)

    def progress(done: float, _total: float) -> None:
        options.report(joined.restore(done, is_end=True), duration)

    # Windows end with a range also where the pauses between ranges are left out.
    ends = np.cumsum([sum(end - start for start, end in spans) for spans in speech]) / SAMPLE_RATE
    ranges = list(itertools.pairwise([0.0, *ends.tolist()]))
    inner = dataclasses.replace(
        options,
        clip_timestamps=options.ranges and [(start, end) for start, end in ranges if start < end],
        on_progress=progress,
    )
    segments: list[Segment] = []
    spoken = transcribe_sequentially(joined.samples, loaded, inner, first_attempts)
    while True:
        try:
            segment = retimed(next(spoken), joined.restore)
        except StopIteration as end:
            transcript: Transcript = end.value
            break
        previous = segments[-1] if segments else None
        segments += within_audio([segment], duration, previous=previous)
        yield segments[-1]
    return dataclasses.replace(transcript, segments=tuple(segments), duration=duration)


def _in_batches(
    samples: Samples,
    loaded: LoadedModel,
    options: TranscribeOptions,
    first_attempts: list[DecodingResult],
) -> Generator[Segment, None, Transcript]:
    """Transcribes `batch_size` stretches in lockstep: of speech, or equal parts of everything."""
    batch_size = options.batch_size
    stretches = _stretches(samples, options)
    if not stretches:
        return _empty(samples, loaded, options)
    # The text before a stretch is not there yet while the stretches are decoded together.
    inner = dataclasses.replace(options, condition_on_previous_text=False, clip_timestamps=None)
    if not options.multilingual and options.language is None:
        language = only_language(loaded.tokenizer, options.languages)
        if language is None:
            language = common_language(samples, stretches, loaded, options.languages)
        inner = dataclasses.replace(inner, language=language, languages=None)
    each = [inner, *[dataclasses.replace(inner, prefix=None)] * (len(stretches) - 1)]
    duration, length = len(samples) / SAMPLE_RATE, sum(end - start for start, end in stretches)
    texts: list[str] = []
    segments: list[Segment] = []
    done = 0.0

    def progress(seconds: float) -> None:
        options.report((done + seconds) * SAMPLE_RATE / length * duration, duration)

    for first in range(0, len(stretches), batch_size):
        group = stretches[first : first + batch_size]
        clips = [samples[start:end] for start, end in group]
        own = each[first : first + batch_size]
        transcripts = transcribe_clips(
            clips, loaded, own, first_attempts=first_attempts, on_window=progress
        )
        moved = [
            retimed(segment, partial(_later, start / SAMPLE_RATE))
            for (start, _), transcript in zip(group, transcripts, strict=True)
            for segment in transcript.segments
        ]
        finished = within_audio(
            numbered(moved, len(segments)), duration, previous=segments[-1] if segments else None
        )
        segments += finished
        texts += [transcript.text for transcript in transcripts]
        done += sum(transcript.duration for transcript in transcripts)
        yield from finished
    spoken = options.language is not None or bool(segments)
    code = (main_language(segments) or transcripts[0].language) if spoken else None
    return Transcript("".join(texts), tuple(segments), code, duration)


def _ranges(samples: Samples, options: TranscribeOptions) -> list[Span]:
    """What is transcribed of a recording, in samples."""
    if options.ranges is None:
        return [(0, len(samples))]
    frames = frames_of(options.ranges, len(samples) // HOP_LENGTH)
    return [(start * HOP_LENGTH, end * HOP_LENGTH) for start, end in frames]


def _speech(samples: Samples, options: TranscribeOptions) -> list[list[Span]]:
    """Spans of speech in each part that is transcribed."""
    return [
        [
            (begin + start, begin + end)
            for start, end in speech_spans(samples[begin:until], options.speech)
        ]
        for begin, until in _ranges(samples, options)
    ]


def _stretches(samples: Samples, options: TranscribeOptions) -> list[Span]:
    """Stretches of speech, or equal parts of everything, of each range by itself."""
    stretches: list[Span] = []
    for begin, until in _ranges(samples, options):
        part = samples[begin:until]
        if options.vad:
            spans = chunks_of(part, speech_spans(part, options.speech), WINDOW)
        else:
            spans = equal_parts(part, min(options.batch_size, -(-len(part) // WINDOW)))
        stretches += [(begin + start, begin + end) for start, end in spans]
    return stretches


def _later(offset: float, seconds: float, *, is_end: bool, middle: float | None = None) -> float:
    return offset + seconds


def _empty(samples: Samples, loaded: LoadedModel, options: TranscribeOptions) -> Transcript:
    """The transcript of a recording without speech."""
    named = options.language
    language = None if named is None else loaded.tokenizer.to_language(named)
    return Transcript("", (), language, len(samples) / SAMPLE_RATE)
