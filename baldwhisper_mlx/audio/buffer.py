"""Samples of a recording, in memory or, of a long one, in a temporary file, a block at a time."""

from __future__ import annotations

import mmap
import tempfile
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from baldwhisper_mlx.config import SAMPLE_RATE

Samples = npt.NDArray[np.float32]
"""Mono at 16 kHz (n,), float32, full scale at 1.0."""

_BLOCK = 2**20
_MOST_IN_MEMORY = 20 * 60 * SAMPLE_RATE
"""Samples (20 min, 77 MB) from which on they go to a temporary file."""


class Collector:
    """Samples as they come: in memory, or, once they are many, in a temporary file without a name.

    An hour of audio takes 230 MB; in a file, it takes no memory but where it is looked at.
    """

    def __init__(self) -> None:
        self._parts: list[Samples] = []
        self._file: BinaryIO | None = None
        self._length = 0

    def add(self, part: Samples) -> None:
        """Appends samples (n,)."""
        self._parts.append(part)
        self._length += len(part)
        if self._length > _MOST_IN_MEMORY and self._file is None:
            self._file = tempfile.TemporaryFile()  # noqa: SIM115
        if self._file is not None:
            for waiting in self._parts:
                self._file.write(np.ascontiguousarray(waiting, np.float32).data)
            self._parts.clear()

    def samples(self) -> Samples:
        """All of them (n,); what is in a file is given back with the array."""
        if self._file is None:
            return np.concatenate(self._parts) if self._parts else np.zeros(0, np.float32)
        self._file.flush()
        found: Samples = np.memmap(self._file, np.float32, "r", shape=(self._length,))
        self._file.close()
        return found


def blocks(samples: Samples, size: int) -> Iterator[Samples]:
    """All samples in order, `size` at a time; those in a file take memory for one block."""
    for first in range(0, len(samples), size):
        yield samples[first : first + size]
        let_go(samples)


def let_go(samples: Samples) -> None:
    """Gives back the memory of what has been looked at; a file is read again where it has to be.

    Samples that are not in a file, or a part of one, stay as they are.
    """
    mapped = getattr(samples, "_mmap", None)
    if mapped is not None and hasattr(mmap, "MADV_DONTNEED"):
        mapped.madvise(mmap.MADV_DONTNEED)


def is_finite(samples: Samples) -> bool:
    """Whether no sample is NaN or infinite."""
    return all(bool(np.isfinite(block).all()) for block in blocks(samples, _BLOCK))


def check_samples(samples: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """The samples as float32.

    Raises:
        ValueError: not a vector of finite floats, or empty.
    """
    if samples.ndim != 1 or not np.issubdtype(samples.dtype, np.floating):
        raise ValueError(
            f"audio: expected mono samples (n,) of floats, full scale at 1.0, "
            f"not {samples.dtype} {samples.shape}"
        )
    if not samples.size:
        raise ValueError("audio: contains no audio (0 samples)")
    if not is_finite(samples):
        raise ValueError("audio: contains NaN or infinite samples")
    return samples.astype(np.float32, copy=False)
