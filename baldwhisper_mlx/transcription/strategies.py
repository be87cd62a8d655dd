"""The three ways to transcribe a recording: sequentially, without its pauses, and in batches.

Each is a generator of finished segments that returns the transcript. Between two segments it needs
nothing that the model holds, so that others can use the model.
"""

from __future__ import annotations

import dataclasses
import sys
import warnings
from collections.abc import Callable, Generator, Sequence
from functools import partial

from baldwhisper_mlx.audio.buffer import Samples
from baldwhisper_mlx.audio.chunking import Span, chunks_of, equal_parts
from baldwhisper_mlx.audio.vad import speech_spans
from baldwhisper_mlx.checkpoint.load import LoadedModel
from baldwhisper_mlx.config import SAMPLE_RATE
from baldwhisper_mlx.decoding.result import DecodingResult
from baldwhisper_mlx.output.segment import Segment
from baldwhisper_mlx.output.transcript import Transcript
from baldwhisper_mlx.transcription.batched import transcribe_clips
from baldwhisper_mlx.transcription.detect_language import WINDOW, common_language
from baldwhisper_mlx.transcription.language import LanguageWarning, doubts, only_language
from baldwhisper_mlx.transcription.options import OptionWarning, TranscribeOptions
from baldwhisper_mlx.transcription.prompts import GivenText
from baldwhisper_mlx.transcription.ranges import ranges_behind
from baldwhisper_mlx.transcription.retiming import retimed, shifted, within_audio
from baldwhisper_mlx.transcription.segments import main_language, numbered
from baldwhisper_mlx.transcription.sequential import transcribe_sequentially
from baldwhisper_mlx.transcription.without_pauses import WithoutPauses, ranges_in_samples

OnWarning = Callable[[Warning], None]


def transcribe_recording(
    samples: Samples,
    loaded: LoadedModel,
    options: TranscribeOptions,
    *,
    on_warning: OnWarning | None = None,
) -> Generator[Segment, None, Transcript]:
    """Transcribes a recording in the way that the options ask for, and yields finished segments.

    Warns of options that it can follow only in part, and at the end if the audio may be in a
    language that the model does not know.

    Args:
        samples: mono at 16 kHz (n,), full scale at 1.0.
        loaded: from `load_model`.
        options: see `TranscribeOptions`.
        on_warning: called with each warning; by default it is issued as a warning of Python.

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
    warn = on_warning or warn_caller
    for warning in _unmet(len(samples) / SAMPLE_RATE, loaded, options):
        warn(warning)
    first_attempts: list[DecodingResult] = []
    transcript = yield from way(samples, loaded, options, first_attempts)
    if doubt := doubts(first_attempts, loaded.tokenizer):
        warn(LanguageWarning(doubt))
    return transcript


def warnings_of(
    duration: float,
    loaded: LoadedModel,
    options: TranscribeOptions,
    first_attempts: Sequence[DecodingResult],
) -> list[Warning]:
    """What `transcribe_recording` warns of, for who has transcribed a recording without it.

    Args:
        duration: of the recording, in seconds.
        loaded: from `load_model`.
        options: see `TranscribeOptions`.
        first_attempts: at all windows that are no silence.
    """
    found: list[Warning] = [*_unmet(duration, loaded, options)]
    doubt = doubts(first_attempts, loaded.tokenizer)
    return [*found, LanguageWarning(doubt)] if doubt else found


def warn_caller(warning: Warning) -> None:
    """Issues a warning of Python, for the line outside of this package that has called it."""
    warnings.warn(warning, stacklevel=_level_of_caller())


def _level_of_caller() -> int:
    """How many frames above the calling function the code is that uses this package."""
    level = 1
    while sys._getframe(level).f_globals.get("__name__", "").startswith(f"{__package__}."):
        level += 1
    return level


def _unmet(duration: float, loaded: LoadedModel, options: TranscribeOptions) -> list[OptionWarning]:
    """What can be followed only in part: texts too long for the context, ranges behind the end.

    Args:
        duration: of the recording, in seconds.
        loaded: from `load_model`.
        options: see `TranscribeOptions`.
    """
    messages = GivenText.of(loaded, options).cut + ranges_behind(options.ranges or (), duration)
    return [OptionWarning(message) for message in messages]


def _without_pauses(
    samples: Samples,
    loaded: LoadedModel,
    options: TranscribeOptions,
    first_attempts: list[DecodingResult],
) -> Generator[Segment, None, Transcript]:
    """Transcribes the speech as one recording, and maps its times back to the whole."""
    speech = WithoutPauses(samples, loaded, options)
    run = speech.run
    while run is not None and run.window_frames:
        n_finished = len(run.segments)
        run.transcribe_window()
        run.options.report(run.seconds_done, run.duration)
        yield from speech.restored(run.segments[n_finished:])
    if run is not None:
        first_attempts += run.decoding.first_attempts
    return speech.transcript()


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
            retimed(segment, partial(shifted, start / SAMPLE_RATE))
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


def _stretches(samples: Samples, options: TranscribeOptions) -> list[Span]:
    """Stretches of speech, or equal parts of everything, of each range by itself."""
    stretches: list[Span] = []
    for begin, until in ranges_in_samples(samples, options):
        part = samples[begin:until]
        if options.vad:
            spans = chunks_of(part, speech_spans(part, options.vad_options), WINDOW)
        else:
            spans = equal_parts(part, min(options.batch_size, -(-len(part) // WINDOW)))
        stretches += [(begin + start, begin + end) for start, end in spans]
    return stretches


def _empty(samples: Samples, loaded: LoadedModel, options: TranscribeOptions) -> Transcript:
    """The transcript of a recording without speech."""
    named = options.language
    language = None if named is None else loaded.tokenizer.to_language(named)
    return Transcript("", (), language, len(samples) / SAMPLE_RATE)
