"""A recording without its pauses: its speech is transcribed as one recording of its own.

Times are mapped back to the whole, segment by segment.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from baldwhisper_mlx.audio.buffer import Samples
from baldwhisper_mlx.audio.chunking import Joined, Span, join_speech
from baldwhisper_mlx.audio.source import no_check
from baldwhisper_mlx.audio.vad import speech_spans
from baldwhisper_mlx.checkpoint.load import LoadedModel
from baldwhisper_mlx.config import HOP_LENGTH, SAMPLE_RATE
from baldwhisper_mlx.output.segment import Segment
from baldwhisper_mlx.output.transcript import Transcript
from baldwhisper_mlx.transcription.options import TranscribeOptions
from baldwhisper_mlx.transcription.ranges import frames_of
from baldwhisper_mlx.transcription.retiming import retimed, within_audio
from baldwhisper_mlx.transcription.sequential import Transcription


class WithoutPauses:
    """A transcription in progress of the speech in a recording.

    Args:
        samples: mono at 16 kHz (n,), full scale at 1.0.
        loaded: from `load_model`.
        options: all but `batch_size`.
        check: called now and then while speech is looked for; what it raises ends that.

    Raises:
        ValueError: as `Transcription.start`. Nothing is decoded yet.
    """

    def __init__(
        self,
        samples: Samples,
        loaded: LoadedModel,
        options: TranscribeOptions,
        check: Callable[[], None] = no_check,
    ) -> None:
        self._duration = len(samples) / SAMPLE_RATE
        self._segments: list[Segment] = []
        speech = speech_in_ranges(samples, options, check)
        spans = [span for spans in speech for span in spans]
        self._joined = join_speech(samples, spans, options.vad_options.speech_pad)
        self.run: Transcription | None = None
        """Of the joined speech; None if nobody speaks."""
        self._language = None
        if options.language is not None:
            self._language = loaded.tokenizer.to_language(options.language)
        if spans:
            inner = _inner_options(options, speech, self._joined, self._duration)
            self.run = Transcription.start(self._joined.samples, loaded, inner)

    def restored(self, segments: Sequence[Segment]) -> Iterator[Segment]:
        """Finished segments of `run`, in their order, with the times of the whole.

        Args:
            segments: those that follow the ones of the call before.
        """
        for segment in segments:
            previous = self._segments[-1] if self._segments else None
            self._segments += within_audio(
                [retimed(segment, self._joined.restore)], self._duration, previous=previous
            )
            yield self._segments[-1]

    def transcript(self) -> Transcript:
        """The transcript of all segments that were restored."""
        if self.run is None:
            return Transcript("", (), self._language, self._duration)
        return dataclasses.replace(
            self.run.transcript(), segments=tuple(self._segments), duration=self._duration
        )


def ranges_in_samples(samples: Samples, options: TranscribeOptions) -> list[Span]:
    """What is transcribed of a recording, in samples."""
    if options.ranges is None:
        return [(0, len(samples))]
    frames = frames_of(options.ranges, len(samples) // HOP_LENGTH)
    return [(start * HOP_LENGTH, end * HOP_LENGTH) for start, end in frames]


def speech_in_ranges(
    samples: Samples, options: TranscribeOptions, check: Callable[[], None] = no_check
) -> list[list[Span]]:
    """Spans of speech, in samples, in each part that is transcribed.

    Args:
        samples: mono at 16 kHz (n,).
        options: ranges, and what counts as speech.
        check: called now and then.
    """
    return [
        [
            (begin + start, begin + end)
            for start, end in speech_spans(samples[begin:until], options.vad_options, check)
        ]
        for begin, until in ranges_in_samples(samples, options)
    ]


def _inner_options(
    options: TranscribeOptions,
    speech: Sequence[Sequence[Span]],
    joined: Joined,
    duration: float,
) -> TranscribeOptions:
    """The options of the joined speech."""

    def progress(done: float, _total: float) -> None:
        options.report(joined.restore(done, is_end=True), duration)

    # Windows end with a range also where the pauses between ranges are left out.
    ends = np.cumsum([sum(end - start for start, end in spans) for spans in speech]) / SAMPLE_RATE
    ranges = list(itertools.pairwise([0.0, *ends.tolist()]))
    return dataclasses.replace(
        options,
        clip_timestamps=options.ranges and [(start, end) for start, end in ranges if start < end],
        on_progress=progress,
    )
