"""The samples of a recording: in memory, or, of a long one, in a memory-mapped temporary file."""

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
"""Samples that are checked at a time."""
_MOST_IN_MEMORY = 20 * 60 * SAMPLE_RATE
"""Samples (20 min, 77 MB) above which a recording is kept in a temporary file."""


class SampleBuffer:
    """Collects the samples of a recording: in memory, or, of a long one, in a temporary file.

    An hour of audio has 230 MB. Mapped from a file, only the pages in use take memory. The file has
    no name, and is deleted with the array.
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
            for pending in self._parts:
                self._file.write(np.ascontiguousarray(pending, np.float32).data)
            self._parts.clear()

    def samples(self) -> Samples:
        """All samples (n,); nothing can be added after that."""
        if self._file is None:
            return np.concatenate(self._parts) if self._parts else np.zeros(0, np.float32)
        self._file.flush()
        samples: Samples = np.memmap(self._file, np.float32, "r", shape=(self._length,))
        self._file.close()  # the array keeps the file's content
        return samples


def blocks(samples: Samples, size: int) -> Iterator[Samples]:
    """All samples in order, `size` at a time; of a file, one block is in memory at a time."""
    for first in range(0, len(samples), size):
        yield samples[first : first + size]
        release_pages(samples)


def release_pages(samples: Samples) -> None:
    """Frees the memory of samples that are mapped from a file; their next use reads them again.

    Samples in memory, and parts of mapped ones, stay as they are.
    """
    mapped = getattr(samples, "_mmap", None)
    if mapped is not None and hasattr(mmap, "MADV_DONTNEED"):
        mapped.madvise(mmap.MADV_DONTNEED)


def is_finite(samples: Samples) -> bool:
    """Whether no sample is NaN or infinite."""
    return all(bool(np.isfinite(block).all()) for block in blocks(samples, _BLOCK))


def check_samples(samples: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """The samples of a caller as float32, once they are known to be usable.

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
