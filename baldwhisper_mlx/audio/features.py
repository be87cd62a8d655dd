"""From samples (audio/load.py) to log-mel features, the input of the encoder (model/whisper.py).

Whisper's features: 25 ms Hann windows every 10 ms, a Slaney mel filter bank, log10 clamped to 8
below the loudest bin of the whole recording, scaled to about [-1, 1] (Radford et al., arXiv
2212.04356, section 2.2). One pass over the whole recording finds that loudest bin; the features
are then computed window by window, so that memory does not grow with the recording. NumPy computes
them: 30 s take a few milliseconds, any thread may do it, and a GPU encodes meanwhile.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from baldwhisper_mlx.audio.buffer import release_pages
from baldwhisper_mlx.audio.source import no_check
from baldwhisper_mlx.config import HOP_LENGTH, SAMPLE_RATE

N_FFT = 400
"""Samples of a Hann window: 25 ms."""
N_FRAMES = 3000
"""Frames (10 ms) of a window, which Whisper encodes at once: 30 s."""

LONG_SILENCE = 100
"""Frames of digital silence with which no window begins; see `after_silence`."""
FLOOR = 1e-10
"""Least mel power; the logarithm of silence would be infinite."""
_BLOCK = 128
"""Frames of one Fourier transform: its numbers stay in the cache of a core."""
_KEPT_CHUNKS = 3
"""Chunks in memory: a window lies in two, and the next window needs one more."""


def mel_filters(n_mels: int) -> npt.NDArray[np.float32]:
    """Slaney's mel filter bank, area-normalized, for 16 kHz and a 400-point FFT.

    The mel scale is linear (200/3 Hz a mel) below 1 kHz and logarithmic (27 mels for a factor
    of 6.4) above: M. Slaney, "Auditory Toolbox", 1998; the same as librosa's default.

    Returns:
        Weights (201, n_mels), float32: frequency bins to mel bins.
    """
    log_step = math.log(6.4) / 27
    # In mels: 0 Hz, the highest frequency, and the edges of the triangles evenly between them.
    top = 15 + math.log(SAMPLE_RATE / 2 / 1000) / log_step
    mels = np.linspace(0, top, n_mels + 2)
    edges = np.where(mels < 15, mels * 200 / 3, 1000 * np.exp(log_step * (mels - 15)))
    frequencies = np.linspace(0, SAMPLE_RATE / 2, N_FFT // 2 + 1)[:, None]
    # Each filter is a triangle over three neighbouring edges, with an area of 1.
    lower, centre, upper = edges[:-2], edges[1:-1], edges[2:]
    rising = (frequencies - lower) / (centre - lower)
    falling = (upper - frequencies) / (upper - centre)
    triangles = np.maximum(0, np.minimum(rising, falling))
    return np.asarray(triangles * 2 / (upper - lower), np.float32)


class LogMelSpectrogram:
    """The features of one recording, computed when they are needed in chunks of 30 s.

    Args:
        samples: mono at 16 kHz, (n,), float32.
        n_mels: mel bins, 80 or 128.
    """

    def __init__(self, samples: npt.NDArray[np.float32], n_mels: int) -> None:
        self.n_mels = n_mels
        self.n_frames = len(samples) // HOP_LENGTH
        """Whole frames of 10 ms in the recording."""
        self._samples = samples
        # Two frames past the end still overlap the audio and can hold its loudest bin.
        self._n_chunks = -(-(self.n_frames + 3) // N_FRAMES)
        self._chunks: dict[int, npt.NDArray[np.float32]] = {}
        self._floor: np.float32 | None = None

    def window(self, seek: int, n_frames: int = N_FRAMES) -> mx.array:
        """The 30 s window that starts at frame `seek`.

        Args:
            seek: first frame (10 ms).
            n_frames: frames after which it ends, at most 3000.

        Returns:
            Features (3000, n_mels), float32, zeros after the window's or the recording's last
            frame.
        """
        size = max(0, min(n_frames, self.n_frames - seek))
        # The chunks that the window lies in, at most two.
        first, last = seek // N_FRAMES, (seek + max(size, 1) - 1) // N_FRAMES
        floor = self.measure()
        parts = [self._chunk(i) for i in range(first, last + 1)]
        features = np.zeros((N_FRAMES, self.n_mels), np.float32)
        power = np.concatenate(parts)[seek - first * N_FRAMES :][:size]
        np.maximum(power, floor, out=features[:size])
        features[:size] = (features[:size] + 4) / 4
        return mx.array(features)

    def is_zero(self, seek: int) -> bool:
        """Whether the window that starts at frame `seek` is digital silence."""
        # Its first and last frames also reach half an FFT before and after it.
        begin = max(seek * HOP_LENGTH - N_FFT // 2, 0)
        zero = not self._samples[begin : (seek + N_FRAMES) * HOP_LENGTH + N_FFT // 2].any()
        release_pages(self._samples)
        return zero

    def after_silence(self, seek: int) -> int:
        """Frame at which the window at `seek` should begin instead, for its digital silence.

        Whisper makes up words in windows that are nothing else, which are passed over, and where a
        window begins with silence, its first segment often does, too.
        """
        while seek < self.n_frames and self.is_zero(seek):
            seek = min(seek + N_FRAMES, self.n_frames)
        begin = seek * HOP_LENGTH
        sounds = self._samples[begin : begin + N_FRAMES * HOP_LENGTH] != 0
        first = int(sounds.argmax()) if sounds.size else 0
        release_pages(self._samples)
        # The first frames of the sound reach half an FFT before it.
        silent = (first - N_FFT // 2) // HOP_LENGTH
        return seek + silent if silent >= LONG_SILENCE else seek

    def prefetch(self, seek: int) -> None:
        """Computes the chunks that the window after the one at `seek` may need.

        Called while a GPU works on the window at `seek`, this costs no time.
        """
        last = min((seek + 2 * N_FRAMES - 1) // N_FRAMES, self._n_chunks - 1)
        for i in range(seek // N_FRAMES, last + 1):
            self._chunk(i)

    def measure(self, check: Callable[[], None] = no_check) -> np.float32:
        """Least log10 power of the recording, 8 below its loudest bin; found once.

        Takes seconds for an hour of audio. The first window would do it otherwise.

        Args:
            check: called before every 30 s; what it raises ends the search.
        """
        if self._floor is None:
            peak = math.log10(FLOOR)
            for i in range(self._n_chunks):
                check()
                peak = max(peak, self._chunk(i).max())
            self._floor = np.float32(peak - 8)
        return self._floor

    def _chunk(self, index: int) -> npt.NDArray[np.float32]:
        """log10 of the mel power of frames [3000 * index, 3000 * (index + 1)), unclamped."""
        if index not in self._chunks:
            first = index * N_FRAMES
            last = min(first + N_FRAMES, self.n_frames + 3)
            self._chunks[index] = log_power(self._samples, first, last, self.n_mels)
            release_pages(self._samples)
            while len(self._chunks) > _KEPT_CHUNKS:
                del self._chunks[next(iter(self._chunks))]
        return self._chunks[index]


def log_mel_spectrogram(samples: npt.NDArray[np.float32], n_mels: int = 80) -> mx.array:
    """Features of one whole recording at once.

    Args:
        samples: mono at 16 kHz, (n,), float32.
        n_mels: mel bins, 80 or 128.

    Returns:
        Features (n // 160, n_mels), float32.

    Example:
        >>> log_mel_spectrogram(np.zeros(16_000, np.float32)).shape
        (100, 80)
    """
    mel = LogMelSpectrogram(samples, n_mels)
    windows = [mel.window(seek) for seek in range(0, max(mel.n_frames, 1), N_FRAMES)]
    return mx.concatenate(windows)[: mel.n_frames]


def log_power(
    samples: npt.NDArray[np.float32], first: int, last: int, n_mels: int
) -> npt.NDArray[np.float32]:
    """log10 of the mel power of frames [first, last) of a recording, unclamped.

    Frame i is centred on sample 160 i. The recording is mirrored before its start, and has zeros
    after its end.

    Args:
        samples: of the recording, mono at 16 kHz, (n,), float32.
        first: frame (10 ms).
        last: the frame after the last one.
        n_mels: mel bins, 80 or 128.

    Returns:
        (last - first, n_mels), float32.
    """
    begin = first * HOP_LENGTH - N_FFT // 2
    segment = np.zeros((last - first - 1) * HOP_LENGTH + N_FFT, np.float32)
    mirrored = max(-begin, 0)
    inside = samples[max(begin, 0) : begin + len(segment)]
    segment[mirrored:][: len(inside)] = inside
    if mirrored:
        segment[:mirrored] = segment[mirrored + 1 : 2 * mirrored + 1][::-1]
    # Overlapping frames as a view: each begins HOP_LENGTH after the one before.
    frames = np.lib.stride_tricks.sliding_window_view(segment, N_FFT)[::HOP_LENGTH]
    window, filters = _constants(n_mels)
    power = np.empty((len(frames), len(filters)), np.float32)
    for begin in range(0, len(frames), _BLOCK):
        part = slice(begin, begin + _BLOCK)
        spectrum = np.fft.rfft(frames[part] * window)
        power[part] = np.square(spectrum.real) + np.square(spectrum.imag)
    mel: npt.NDArray[np.float32] = power @ filters
    np.maximum(mel, FLOOR, out=mel)
    return np.log10(mel, out=mel)


@lru_cache(maxsize=4)
def _constants(n_mels: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Hann window (400,) and mel filters (201, n_mels)."""
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(N_FFT) / N_FFT)  # periodic
    return hann.astype(np.float32), mel_filters(n_mels)
