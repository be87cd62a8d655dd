"""Log-mel features of speech that is still arriving.

Whisper clamps log-mel to 8 below the loudest bin of the recording (features.py). Here the recording
is the utterance so far: at any time the features are those that `LogMelSpectrogram` computes of
the samples received, and so those of the finished utterance at its end. When a louder sound
arrives, earlier frames change by the clamp only, so the power of a frame is computed once, as soon
as all of its samples are there. Only the last three frames, which reach past what has been
received, are computed again.
"""

from __future__ import annotations

import math

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from baldwhisper_mlx.audio.features import FLOOR, N_FFT, N_FRAMES, log_power
from baldwhisper_mlx.config import HOP_LENGTH

_PAST = 3
"""Frames from the end on that can still hold the loudest bin, as in `LogMelSpectrogram`."""


class StreamingLogMel:
    """The features of one utterance of at most 30 s, which grows.

    Args:
        n_mels: mel bins, 80 or 128.

    Example:
        >>> mel = StreamingLogMel(80)
        >>> mel.append(np.zeros(1600, np.float32))
        >>> mel.n_frames
        10
    """

    def __init__(self, n_mels: int) -> None:
        self.n_mels = n_mels
        self._samples = np.zeros(N_FRAMES * HOP_LENGTH, np.float32)
        self._n_samples = 0
        self._power = np.zeros((N_FRAMES + _PAST, n_mels), np.float32)
        self._n_settled = 0
        self._peak = math.log10(FLOOR)

    @property
    def n_frames(self) -> int:
        """Whole frames of 10 ms so far."""
        return self._n_samples // HOP_LENGTH

    def append(self, samples: npt.NDArray[np.float32]) -> None:
        """Adds what comes next.

        Args:
            samples: mono at 16 kHz, (n,), float32.

        Raises:
            ValueError: the utterance would be longer than 30 s.
        """
        end = self._n_samples + len(samples)
        if end > len(self._samples):
            raise ValueError("an utterance of more than 30 s does not fit the model's window")
        self._samples[self._n_samples : end] = samples
        self._n_samples = end
        # Frame i ends half a Fourier transform behind sample 160 i; the first one is mirrored.
        settled = max(0, (end - 1 - N_FFT // 2) // HOP_LENGTH + 1)
        if settled > self._n_settled:
            power = self._compute(self._n_settled, settled)
            self._peak = max(self._peak, float(power.max()))
            self._n_settled = settled

    def window(self) -> mx.array:
        """Features (3000, n_mels), float32, zeros behind the last frame so far."""
        n_frames = self.n_frames
        last = self._compute(self._n_settled, n_frames + _PAST)
        floor = np.float32(max(self._peak, float(last.max())) - 8)
        features = np.zeros((N_FRAMES, self.n_mels), np.float32)
        np.maximum(self._power[:n_frames], floor, out=features[:n_frames])
        features[:n_frames] = (features[:n_frames] + 4) / 4
        return mx.array(features)

    def _compute(self, first: int, last: int) -> npt.NDArray[np.float32]:
        """Computes the power of frames [first, last) from the samples so far, and keeps it."""
        samples = self._samples[: self._n_samples]
        self._power[first:last] = log_power(samples, first, last, self.n_mels)
        return self._power[first:last]
