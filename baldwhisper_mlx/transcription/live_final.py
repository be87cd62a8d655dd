"""The text of an utterance that has ended: `transcribe`, with times of the stream."""

from __future__ import annotations

import dataclasses
import warnings
from dataclasses import dataclass
from functools import partial

from baldwhisper_mlx.audio.buffer import Samples
from baldwhisper_mlx.checkpoint.load import LoadedModel
from baldwhisper_mlx.config import SAMPLE_RATE
from baldwhisper_mlx.transcription.live_events import Utterance
from baldwhisper_mlx.transcription.options import OptionWarning, TranscribeOptions
from baldwhisper_mlx.transcription.prompts import GivenText
from baldwhisper_mlx.transcription.retiming import retimed, shifted
from baldwhisper_mlx.transcription.segments import numbered
from baldwhisper_mlx.transcription.strategies import warn_caller
from baldwhisper_mlx.transcription.stream import TranscriptStream


@dataclass(frozen=True)
class EndedUtterance:
    """What is known of an utterance before it is transcribed."""

    samples: Samples
    start: int
    """Its first sample in the stream."""
    language: str | None
    """Code, if the drafts are sure of it."""


class FinalTranscriber:
    """Transcribes the utterances of a stream in their order.

    Warns of texts that are too long for the text context once, rather than with every utterance.

    Args:
        loaded: from `load_model`.
        options: of `transcribe`.
    """

    def __init__(self, loaded: LoadedModel, options: TranscribeOptions) -> None:
        self._loaded, self._options = loaded, options
        self._n_segments = 0
        for message in GivenText.of(loaded, options).cut:
            warnings.warn(message, OptionWarning, stacklevel=3)

    def transcribe(self, ended: EndedUtterance) -> Utterance:
        """Transcribes the next utterance.

        Raises:
            FloatingPointError: NaN or infinite logits.
        """
        options, start = self._options, ended.start / SAMPLE_RATE
        if ended.language is not None and not options.multilingual:
            options = dataclasses.replace(options, language=ended.language, languages=None)
        stream = TranscriptStream(ended.samples, self._loaded, options, on_warning=_warn)
        transcript = stream.transcript()
        later = partial(shifted, start)
        moved = [retimed(segment, later) for segment in transcript.segments]
        segments = tuple(numbered(moved, self._n_segments))
        self._n_segments += len(segments)
        return Utterance(
            start=start,
            end=(ended.start + len(ended.samples)) / SAMPLE_RATE,
            text=transcript.text,
            segments=segments,
            language=transcript.language,
        )


def _warn(warning: Warning) -> None:
    if not isinstance(warning, OptionWarning):  # of which the stream has warned at its start
        warn_caller(warning)
