"""A recording to be transcribed, and what becomes of it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from baldwhisper_mlx.audio.buffer import Samples
from baldwhisper_mlx.audio.source import no_check
from baldwhisper_mlx.checkpoint.load import LoadedModel
from baldwhisper_mlx.config import SAMPLE_RATE
from baldwhisper_mlx.output.segment import Segment
from baldwhisper_mlx.output.transcript import Transcript
from baldwhisper_mlx.terminal import message_of
from baldwhisper_mlx.transcription.options import TranscribeOptions
from baldwhisper_mlx.transcription.sequential import Transcription
from baldwhisper_mlx.transcription.strategies import warnings_of
from baldwhisper_mlx.transcription.without_pauses import WithoutPauses

Result = Sequence[Segment] | Transcript | Exception
"""Of a job, in this order: finished segments, any number of times, then the end or an error."""
Deliver = Callable[[Result], None]


@dataclass(eq=False)
class Job:
    """A recording to be transcribed; `deliver` is called on the worker's thread."""

    samples: Samples
    loaded: LoadedModel
    options: TranscribeOptions
    deliver: Deliver
    warnings: list[str] = field(default_factory=list)
    """What the client should know of the recording, complete when the transcript is delivered."""
    run: Transcription | None = None
    """What is decoded: the recording, or the speech in it; None before `prepare`, and if nobody
    speaks."""
    is_prepared: bool = False
    _speech: WithoutPauses | None = None
    _cancelled: threading.Event = field(default_factory=threading.Event)

    def prepare(self, check: Callable[[], None] = no_check) -> None:
        """Makes the job ready to be decoded, which takes seconds for hours of audio.

        The worker does it otherwise, and others wait meanwhile.

        Args:
            check: called now and then; what it raises ends that.

        Raises:
            ValueError: the model cannot follow the options, or the samples are of no use.
        """
        if self.options.vad:
            self._speech = WithoutPauses(self.samples, self.loaded, self.options, check)
            self.run = self._speech.run
        else:
            self.run = Transcription.start(self.samples, self.loaded, self.options)
        if self.run is not None:
            self.run.prepare(check)
        self.is_prepared = True

    @property
    def has_window(self) -> bool:
        """Whether there is another window to be decoded."""
        return self.run is not None and self.run.window_frames > 0

    def segments(self, first: int) -> list[Segment]:
        """Finished segments, with the times of the recording.

        Args:
            first: of them; those before it were asked for before.
        """
        if self.run is None:
            return []
        segments = self.run.segments[first:]
        return segments if self._speech is None else list(self._speech.restored(segments))

    def transcript(self) -> Transcript:
        """The transcript of all segments that were asked for; completes the warnings."""
        attempts = [] if self.run is None else self.run.decoding.first_attempts
        duration = len(self.samples) / SAMPLE_RATE
        for warning in warnings_of(duration, self.loaded, self.options, attempts):
            self.warnings.append(message_of(warning))
        if self._speech is not None:
            return self._speech.transcript()
        assert self.run is not None
        return self.run.transcript()

    def cancel(self) -> None:
        """Ends the job at its next window; nothing is delivered any more."""
        self._cancelled.set()

    @property
    def is_cancelled(self) -> bool:
        """Whether nobody waits for it."""
        return self._cancelled.is_set()
