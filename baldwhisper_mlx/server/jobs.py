"""A recording to be transcribed, and what becomes of it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from baldwhisper_mlx.audio.buffer import Samples
from baldwhisper_mlx.checkpoint.load import LoadedModel
from baldwhisper_mlx.config import SAMPLE_RATE
from baldwhisper_mlx.decoding.result import DecodingResult
from baldwhisper_mlx.output.segment import Segment
from baldwhisper_mlx.output.transcript import Transcript
from baldwhisper_mlx.terminal import message_of
from baldwhisper_mlx.transcription.options import TranscribeOptions
from baldwhisper_mlx.transcription.strategies import warnings_of

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
    _cancelled: threading.Event = field(default_factory=threading.Event)

    def cancel(self) -> None:
        """Ends the job at its next window; nothing is delivered any more."""
        self._cancelled.set()

    def warn(self, warning: Warning) -> None:
        """Adds to the warnings."""
        self.warnings.append(message_of(warning))

    def warn_of(self, first_attempts: Sequence[DecodingResult]) -> None:
        """Adds what there is to say of the transcription.

        Args:
            first_attempts: at all windows that are no silence.
        """
        duration = len(self.samples) / SAMPLE_RATE
        for warning in warnings_of(duration, self.loaded, self.options, first_attempts):
            self.warn(warning)

    @property
    def is_cancelled(self) -> bool:
        """Whether nobody waits for it."""
        return self._cancelled.is_set()
