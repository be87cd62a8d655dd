"""The samples of a recording: in memory, or, of a long one, in a memory-mapped temporary file.

And those that a caller has in memory, in the types in which people have them.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from baldwhisper_mlx.audio.channels import ChannelSelector
from baldwhisper_mlx.config import SAMPLE_RATE

Samples = npt.NDArray[np.float32]
"""Mono at 16 kHz (n,), float32, full scale at 1.0."""

_BLOCK = 2**20
"""Samples that are checked at a time."""
_MOST_IN_MEMORY = 20 * 60 * SAMPLE_RATE
"""Samples (20 min, 77 MB) above which a recording is kept in a temporary file."""

_TAKEN = (
    "a path, a binary stream, or samples at 16 kHz: float (full scale at 1.0) or int16, "
    "(n,), (n, channels) or (channels, n), as a NumPy array, a list, or what NumPy can make an "
    "array of, such as a torch.Tensor on the CPU"
)
_MOST_CHANNELS = 64


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
        self._save()

    def add_silence(self, n: int) -> None:
        """Appends `n` zeros, which take no space in a file."""
        if self._length + n <= _MOST_IN_MEMORY:
            self.add(np.zeros(n, np.float32))
            return
        self._length += n
        file = self._save()
        assert file is not None
        file.seek(4 * n, os.SEEK_CUR)

    def _save(self) -> BinaryIO | None:
        """Writes what is in memory, once that is too long."""
        if self._length > _MOST_IN_MEMORY and self._file is None:
            self._file = tempfile.TemporaryFile()  # noqa: SIM115
        if self._file is not None:
            for pending in self._parts:
                self._file.write(np.ascontiguousarray(pending, np.float32).data)
            self._parts.clear()
        return self._file

    def samples(self) -> Samples:
        """All samples (n,); nothing can be added after that."""
        if self._file is None:
            return np.concatenate(self._parts) if self._parts else np.zeros(0, np.float32)
        self._file.truncate(4 * self._length)  # or silence at the end would be missing
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


def check_samples(audio: Any) -> Samples:
    """The samples of a caller, mono as float32, once they are known to be usable.

    Args:
        audio: floats with full scale at 1.0, or int16; (n,), (n, channels) or (channels, n), of
            which the shorter axis is the channels. They are averaged as those of a file.

    Returns:
        Samples (n,), float32.

    Raises:
        TypeError: not samples, or numbers of another type.
        ValueError: of another shape, empty, or not finite.
    """
    if isinstance(audio, (bytes, bytearray, memoryview)):
        raise TypeError(
            f"audio: {type(audio).__name__} may be a file or raw samples; give io.BytesIO(...) of "
            "a file's content, or load_pcm(...) of raw 16-bit samples"
        )
    array = _as_array(audio)
    if array.dtype == np.int16:
        scaled = array.astype(np.float32) / np.float32(32768)
    elif np.issubdtype(array.dtype, np.floating):
        with np.errstate(over="ignore"):  # found below
            scaled = array.astype(np.float32, copy=False)
    else:
        raise TypeError(f"audio: cannot take numbers of type {array.dtype}; give {_TAKEN}")
    if not array.size:
        raise ValueError("audio: contains no audio (0 samples)")
    if scaled.ndim == 2 and min(scaled.shape) <= _MOST_CHANNELS:
        frames = scaled if scaled.shape[0] <= scaled.shape[1] else scaled.T
        scaled = ChannelSelector("mix").select(np.ascontiguousarray(frames), SAMPLE_RATE)[0]
    if scaled.ndim != 1:
        raise ValueError(f"audio: cannot take samples of shape {array.shape}; give {_TAKEN}")
    if not is_finite(scaled):
        raise ValueError("audio: contains NaN or infinite samples")
    checked: Samples = scaled
    return checked


def _as_array(audio: Any) -> npt.NDArray[Any]:
    if isinstance(audio, np.ndarray):
        return audio
    try:
        if not isinstance(audio, (list, tuple)) and not hasattr(audio, "__array__"):
            raise TypeError
        return np.asarray(audio)
    except (TypeError, ValueError, RuntimeError) as error:
        reason = f" ({error})" if str(error) else ""
        raise TypeError(
            f"audio: cannot take {type(audio).__name__}{reason}; give {_TAKEN}"
        ) from None
