"""The audio of a session, as it arrives, at 16 kHz: PCM of 16 bits, or G.711.

NumPy and soxr only.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import soxr

from baldwhisper_mlx.audio.buffer import Samples
from baldwhisper_mlx.config import SAMPLE_RATE

PCM, MU_LAW, A_LAW = "audio/pcm", "audio/pcmu", "audio/pcma"
TELEPHONE_RATE = 8_000
"""Samples per second of G.711."""


@dataclass(frozen=True)
class AudioFormat:
    """How a client sends audio; one channel."""

    type: str = PCM
    """PCM (16-bit integers, little-endian), MU_LAW or A_LAW."""
    rate: int = 24_000
    """Samples per second."""

    @property
    def width(self) -> int:
        """Bytes of a sample."""
        return 2 if self.type == PCM else 1


class AudioStream:
    """Decodes and resamples a stream of bytes; its blocks may end anywhere, within a sample, too.

    Args:
        form: of the bytes.
    """

    def __init__(self, form: AudioFormat) -> None:
        self._form = form
        self._half = b""
        self._resampler: soxr.ResampleStream | None = None

    def decode(self, data: bytes) -> Samples:
        """The samples of the bytes that come next, (n,); soxr keeps some back.

        Args:
            data: any number of bytes.
        """
        data = self._half + data
        whole = len(data) - len(data) % self._form.width
        self._half = data[whole:]
        samples = _decoded(data[:whole], self._form.type)
        if self._form.rate == SAMPLE_RATE:
            return samples
        if self._resampler is None:
            self._resampler = soxr.ResampleStream(self._form.rate, SAMPLE_RATE, 1, dtype="float32")
        resampled: Samples = self._resampler.resample_chunk(samples)
        return resampled

    def finish(self) -> Samples:
        """What soxr kept back, (n,); what comes next begins anew."""
        resampler, self._resampler = self._resampler, None
        self._half = b""
        rest: Samples = np.zeros(0, np.float32)
        if resampler is not None:
            rest = resampler.resample_chunk(rest, last=True)
        return rest


def _decoded(data: bytes, kind: str) -> Samples:
    if kind == PCM:
        samples: Samples = np.frombuffer(data, "<i2").astype(np.float32) / np.float32(32768)
        return samples
    return _LEVELS[kind][np.frombuffer(data, np.uint8)]


def _mu_law() -> npt.NDArray[np.int32]:
    """The value of every byte: ITU-T G.711, table 2, with 16 bits."""
    code = ~np.arange(256) & 0xFF
    magnitude = (((code & 0x0F) << 3) + 0x84 << ((code & 0x70) >> 4)) - 0x84
    return np.where(code & 0x80, -magnitude, magnitude)


def _a_law() -> npt.NDArray[np.int32]:
    """The value of every byte: ITU-T G.711, table 1, with 16 bits."""
    code = np.arange(256) ^ 0x55
    exponent, mantissa = (code & 0x70) >> 4, (code & 0x0F) << 4
    magnitude = np.where(
        exponent > 0, mantissa + 0x108 << np.maximum(exponent - 1, 0), mantissa + 8
    )
    return np.where(code & 0x80, magnitude, -magnitude)


_LEVELS: dict[str, Samples] = {
    name: (values / 32768).astype(np.float32)
    for name, values in ((MU_LAW, _mu_law()), (A_LAW, _a_law()))
}
