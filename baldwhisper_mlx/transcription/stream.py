"""A transcription in progress: finished segments one by one, and the transcript at the end."""

from __future__ import annotations

import contextlib
from collections.abc import Generator

from baldwhisper_mlx.audio.buffer import Samples
from baldwhisper_mlx.checkpoint.load import LoadedModel
from baldwhisper_mlx.config import SAMPLE_RATE
from baldwhisper_mlx.output.segment import Segment
from baldwhisper_mlx.output.transcript import Transcript
from baldwhisper_mlx.terminal import message_of
from baldwhisper_mlx.transcription.inputs import check_options
from baldwhisper_mlx.transcription.options import TranscribeOptions
from baldwhisper_mlx.transcription.strategies import transcribe_recording


class TranscriptStream:
    """An iterator over the segments of a recording, which is transcribed as they are asked for.

    The model is in use only while a segment is being computed: other threads can use it between
    two of them, and nothing has to be closed when no more are wanted. Several threads can share a
    stream; each segment goes to one of them.

    Args:
        samples: mono at 16 kHz (n,), full scale at 1.0.
        loaded: from `load_model`.
        options: see `TranscribeOptions`.
        warn_of_options: whether to warn of options that can be followed only in part.

    Raises:
        ValueError: the model cannot follow the options; see `check_options`.

    Example:
        >>> stream = transcribe_iter("talk.mp3")
        >>> for segment in stream:
        ...     print(segment.start, segment.text)
        >>> stream.transcript().save("talk.srt")
    """

    def __init__(
        self,
        samples: Samples,
        loaded: LoadedModel,
        options: TranscribeOptions,
        *,
        warn_of_options: bool = True,
    ) -> None:
        check_options(options, loaded)  # here, rather than when the first segment is asked for
        self.duration = len(samples) / SAMPLE_RATE
        """Seconds of the recording."""
        self._loaded = loaded
        self._segments: Generator[Segment, None, Transcript] | None
        self._segments = transcribe_recording(
            samples, loaded, options, warn_of_options=warn_of_options
        )
        self._transcript: Transcript | None = None
        self._reason = "it was closed"

    def __iter__(self) -> TranscriptStream:
        return self

    def __next__(self) -> Segment:
        """The next segment, when it is finished.

        Raises:
            FloatingPointError: NaN or infinite logits.
            RuntimeError: the process was forked after the model had been loaded.
        """
        with self._loaded.in_use():
            return self._next()

    def close(self) -> None:
        """Ends the transcription, and frees what it holds; no more segments come."""
        with self._loaded.in_use():
            if self._segments is not None:
                self._segments.close()
                self._segments = None

    def transcript(self) -> Transcript:
        """The whole transcript; what has not been transcribed yet is, first.

        Raises:
            RuntimeError: the transcription was closed, or has failed, before the end.
            FloatingPointError: NaN or infinite logits.
        """
        # In use until the end, so that the caches last from window to window.
        with self._loaded.in_use(), contextlib.suppress(StopIteration):
            while True:
                self._next()
        if self._transcript is None:
            raise RuntimeError(f"the recording was not transcribed to its end: {self._reason}")
        return self._transcript

    def _next(self) -> Segment:
        if self._segments is None:
            raise StopIteration
        try:
            return next(self._segments)
        except StopIteration as end:
            self._transcript, self._segments = end.value, None
            raise
        except BaseException as error:
            # Not the error itself, whose traceback holds the recording.
            self._reason, self._segments = message_of(error), None
            raise
