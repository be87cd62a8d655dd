"""Which channels of a recording are used: their mean, one of them, or each by itself."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

CHANNELS = ("mix", "left", "right", "split")
"""What can be chosen: the mean of all channels, the first, the second, or each by itself."""
MOST_SPLIT = 8
"""Channels of a recording that are transcribed by themselves, at most."""
_CANCELLED = 0.05
"""Share of the power that unrelated channels would leave in their mean. With less, the channels
are copies of each other with opposite signs: a correlation below -0.95."""
_AUDIBLE = 1e-9
"""Mean square (-90 dB) below which a second is silence."""

Frames = npt.NDArray[np.float32]
"""Samples (channels, n)."""


class ChannelSelector:
    """Turns blocks of all channels into blocks of those that are used.

    Args:
        channels: one of `CHANNELS`.
    """

    def __init__(self, channels: str = "mix") -> None:
        if channels not in CHANNELS:
            raise ValueError(f"channels must be one of {', '.join(CHANNELS)}, not {channels!r}")
        self.n_channels = 0
        """Of the recording, in the block that had most."""
        self.is_opposite = False
        """Whether channels cancelled out somewhere, and one of them was taken there."""
        self._channels = channels
        self._n_split = 0
        self._loudest = 0

    def select(self, frames: Frames, rate: int) -> Frames:
        """Samples (channels in use, n) of a block (channels, n) at a rate in Hz.

        Raises:
            ValueError: more channels to be split than `MOST_SPLIT`.
        """
        n = frames.shape[0]
        self.n_channels = max(self.n_channels, n)
        if self._channels == "split":
            self._n_split = self._n_split or n
            if self._n_split > MOST_SPLIT:
                raise ValueError(
                    f"{n} channels are too many to be transcribed by themselves (at most "
                    f"{MOST_SPLIT}); use channels mix, left or right"
                )
            return frames[[min(i, n - 1) for i in range(self._n_split)]]
        if self._channels != "mix" or n == 1:
            return frames[[min(int(self._channels == "right"), n - 1)]]
        return np.concatenate([self._mixed(part) for part in _parts(frames, rate)], axis=1)

    def _mixed(self, frames: Frames) -> Frames:
        """The mean of the channels (1, n); the loudest one where they cancel out."""
        with np.errstate(over="ignore", invalid="ignore"):  # infinite samples are refused later
            mean: Frames = frames.mean(axis=0, keepdims=True, dtype=np.float32)
            powers = np.einsum("ij,ij->i", frames, frames, dtype=np.float64) / frames.shape[1]
            unrelated = float(powers.sum()) / len(powers) ** 2
            if not unrelated > _AUDIBLE or np.mean(np.square(mean)) > _CANCELLED * unrelated:
                return mean
        if not self.is_opposite:  # one and the same from here on
            self.is_opposite, self._loudest = True, int(np.argmax(powers))
        chosen = min(self._loudest, len(frames) - 1)
        return frames[[chosen]]


def _parts(frames: Frames, rate: int) -> Iterator[Frames]:
    """A second each, the last one at least half of that."""
    n = frames.shape[1]
    count = max(1, round(n / rate))
    cuts = [i * n // count for i in range(count + 1)]
    for first, last in itertools.pairwise(cuts):
        yield frames[:, first:last]
