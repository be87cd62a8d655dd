"""Where an utterance begins and ends, decided while the speech arrives.

The same rules as `vad.spans_of`, hop by hop: speech that lasts `shortest` begins an utterance, and
a silence of more than `pause` ends it. NumPy only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from baldwhisper_mlx.audio.vad import HOP, VadOptions
from baldwhisper_mlx.config import SAMPLE_RATE

LIVE_SPEECH = VadOptions(min_silence_duration=0.6)
"""What counts as speech while it arrives: pauses are not shorter than the padding of both sides."""
_LEAST_PAUSE = 4
"""Hops (128 ms) of a pause at which a long utterance is cut."""


@dataclass(frozen=True)
class Began:
    """An utterance has begun."""

    sample: int
    """Its first sample, padding included."""


@dataclass(frozen=True)
class Ended:
    """The utterance has ended."""

    sample: int
    """The one after its last, padding included."""


class Endpointer:
    """Finds utterances from one probability of speech after another.

    Args:
        speech: thresholds and times; `pause` must be at least twice `pad`, so that the padding of
            an utterance never reaches into the next one.

    Raises:
        ValueError: it is not.
    """

    def __init__(self, speech: VadOptions = LIVE_SPEECH) -> None:
        if speech.min_silence_duration < 2 * speech.speech_pad:
            raise ValueError(
                f"min_silence_duration, {speech.min_silence_duration} s, must be at least twice "
                f"speech_pad, {speech.speech_pad} s"
            )
        self._speech = speech
        self._pause, self._shortest, self._pad = (
            round(seconds * SAMPLE_RATE)
            for seconds in (
                speech.min_silence_duration,
                speech.min_speech_duration,
                speech.speech_pad,
            )
        )
        self._now = 0
        """Samples so far."""
        self._speaking = False
        self._start: int | None = None
        """Of the speech that may become, or is, an utterance."""
        self.speech_end = 0
        """The sample behind the last speech so far, without padding."""
        self._began = False

    @property
    def earliest(self) -> int:
        """The first sample that can belong to the utterance at hand or to the next one."""
        start = self._now if self._start is None else self._start
        return max(0, start - self._pad)

    def push(self, probability: float) -> Began | Ended | None:
        """Takes the probability of speech in the next 32 ms; says what it decides."""
        threshold = self._speech.neg_threshold if self._speaking else self._speech.threshold
        self._speaking = probability >= threshold
        if self._speaking and self._start is None:
            self._start = self._now
        self._now += HOP
        if self._speaking:
            self.speech_end = self._now
        if self._start is None:
            return None
        if not self._began and self.speech_end - self._start >= self._shortest:
            self._began = True
            return Began(self.earliest)
        if self._now - self.speech_end > self._pause:
            return self._close(self._now)
        return None

    def finish(self, n_samples: int) -> Ended | None:
        """Ends the utterance at hand, if there is one, because the stream of samples has ended.

        Args:
            n_samples: samples of the stream.
        """
        return self._close(n_samples) if self._start is not None else None

    def _close(self, n_samples: int) -> Ended | None:
        began, self._began, self._start = self._began, False, None
        return Ended(min(self.speech_end + self._pad, n_samples)) if began else None


def quietest(probabilities: Sequence[float], release: float, fallback: int | None = None) -> int:
    """Where speech that is too long for one utterance is cut, looking at its second half.

    In the middle of the longest pause of 128 ms or more; without one at the fallback, or, if that
    is not in the second half, where speech is least probable.

    Args:
        probabilities: of speech in every hop of it.
        release: probability below which a hop belongs to a pause.
        fallback: hop at which a word is known to end.

    Returns:
        The number of hops before the cut, at least 1.
    """
    half, total = len(probabilities) // 2, len(probabilities)
    best, run = (0, 0), 0
    for i in range(half, total):
        run = run + 1 if probabilities[i] < release else 0
        best = max(best, (run, i + 1 - run // 2))
    if best[0] >= _LEAST_PAUSE:
        return best[1]
    if fallback is not None and half <= fallback < total:
        return max(1, fallback)
    return max(1, min(range(half, total), key=probabilities.__getitem__))
