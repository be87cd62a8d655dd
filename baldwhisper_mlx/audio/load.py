"""Audio files to 16 kHz samples. Decoding and resampling are soundfile's, PyAV's and soxr's."""

from __future__ import annotations

import shutil
import tempfile
from contextlib import closing
from pathlib import Path
from typing import BinaryIO

import numpy as np
import soundfile
import soxr

from baldwhisper_mlx.audio import containers
from baldwhisper_mlx.audio.buffer import SampleBuffer, Samples, is_finite
from baldwhisper_mlx.audio.integrity import (
    container_missing_bytes,
    is_chained_ogg,
    missing_bytes,
    mp3_surplus,
)
from baldwhisper_mlx.config import SAMPLE_RATE

_BLOCK = 2**20
"""Frames decoded at a time."""
_LOWEST_RATE = 1000
"""Hz; telephones have 8000."""
_MAX_FRAMES = 2**48
"""More than any file has; libsndfile says so where a FLAC gives no length."""


def load_audio(source: str | Path | BinaryIO) -> Samples:
    """Decodes an audio file to mono at 16 kHz.

    wav, flac, ogg, opus, mp3 and the like go through soundfile; what it does not know (m4a, wma,
    amr, video and many others) goes through FFmpeg's libraries, which PyAV brings along.

    Args:
        source: a path, or a binary stream that is read to its end.

    Returns:
        Samples (n,), float32, full scale at 1.0; channels are averaged. Of several audio tracks
        the default one, or the first.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a folder, no audio in it, a cut-off file, NaN samples, an unknown format.
    """
    if not isinstance(source, (str, Path)):
        # The content says the format and the file's size the length: both need a file.
        with tempfile.NamedTemporaryFile() as copy:
            shutil.copyfileobj(source, copy, _BLOCK)
            copy.flush()
            return _decode(Path(copy.name), str(getattr(source, "name", "<stream>")))
    path = Path(source)
    if path.is_dir():
        raise ValueError(f"{source}: is a folder, not an audio file")
    if not path.exists():
        raise FileNotFoundError(f"{source}: no such file")
    return _decode(path, str(source))


def load_pcm(source: BinaryIO, rate: int) -> Samples:
    """Raw PCM as samples at 16 kHz.

    Args:
        source: of signed 16-bit little-endian numbers, one channel; read to its end.
        rate: of the samples, in Hz.

    Returns:
        Samples (n,), float32, full scale at 1.0.

    Raises:
        ValueError: nothing in it, half a number, or an impossible rate.
    """
    _check_rate(rate, "raw PCM")
    collected, size, half = _Resampled(rate), 0, b""
    while data := source.read(2 * _BLOCK):
        size += len(data)
        data = half + data
        whole = len(data) // 2 * 2
        half = data[whole:]  # a socket may give part of a number
        numbers = np.frombuffer(data[:whole], "<i2")
        collected.add(numbers.astype(np.float32) / np.float32(32768))
    if not size:
        raise ValueError("raw PCM: there is no audio")
    if size % 2:
        raise ValueError(f"raw PCM: {size} bytes are no whole number of 16-bit samples")
    return collected.samples()


class _Resampled:
    """Collects samples (n,) at some rate, and gives them at 16 kHz."""

    def __init__(self, rate: int = SAMPLE_RATE) -> None:
        self._collector = SampleBuffer()
        self._rate = SAMPLE_RATE
        self._stream: soxr.ResampleStream | None = None
        self.change_rate(rate)

    def change_rate(self, rate: int) -> None:
        """For what is added from here on."""
        if rate != self._rate:
            self._finish()
            self._rate = rate
            if rate != SAMPLE_RATE:
                self._stream = soxr.ResampleStream(rate, SAMPLE_RATE, 1, dtype="float32")

    def add(self, samples: Samples) -> None:
        if self._stream is not None:
            samples = self._stream.resample_chunk(samples)
        self._collector.add(samples)

    def samples(self) -> Samples:
        """All of them; nothing can be added after that."""
        self._finish()
        return self._collector.samples()

    def _finish(self) -> None:
        """Collects what the resampler holds back."""
        if self._stream is not None:
            self._collector.add(self._stream.resample_chunk(np.zeros(0, np.float32), last=True))
            self._stream = None


class _BeyondLibsndfile(Exception):
    """libsndfile would decode a part of the file and call it the whole."""


def _check_rate(rate: int, name: str) -> None:
    """Refuses rates at which a small file would become hours of samples."""
    if rate < _LOWEST_RATE:
        raise ValueError(f"{name}: a sample rate of {rate} Hz, which no speech has")


class _Straight(soundfile.SoundFile):  # type: ignore[misc]
    """Reads on without a seek after every block, which would spoil the next one of an MP3."""

    def seekable(self) -> bool:
        """No."""
        return False


def _decode(path: Path, name: str) -> Samples:
    """Samples of a file, and `name` for it in messages."""
    size = path.stat().st_size
    if size == 0:
        raise ValueError(f"{name}: the file is empty")
    try:
        samples = _decode_soundfile(path, name)
    except (soundfile.LibsndfileError, _BeyondLibsndfile):
        samples = _decode_container(path, name)
    if samples.size == 0:
        raise ValueError(f"{name}: contains no audio (0 samples)")
    if not is_finite(samples):
        raise ValueError(f"{name}: contains NaN or infinite samples")
    return samples


def _decode_soundfile(path: Path, name: str) -> Samples:
    with _Straight(path) as file:
        expected, rate, container = file.frames, file.samplerate, file.format
        _check_rate(rate, name)
        if expected > _MAX_FRAMES:
            raise _BeyondLibsndfile("written into a pipe, so that its length is unknown")
        _check_length(path, name, container, file.extra_info)
        collected, n_frames = _Resampled(rate), 0
        while True:
            try:
                block = file.read(_BLOCK, dtype="float32", always_2d=True)
            except soundfile.LibsndfileError as error:
                raise ValueError(f"{name}: damaged {container} audio ({error})") from None
            n_frames += len(block)
            collected.add(block.mean(axis=1, dtype=np.float32))
            if not len(block) or (len(block) < _BLOCK and n_frames >= expected):
                break
    # Compressed streams only estimate their length; the others state it.
    if container not in ("MPEG", "OGG", "MP3") and n_frames < expected:
        raise ValueError(f"{name}: truncated, {n_frames} of {expected} samples can be read")
    return collected.samples()


def _check_length(path: Path, name: str, container: str, log: str) -> None:
    missing = missing_bytes(log, container)
    if container in ("MPEG", "MP3"):
        surplus = mp3_surplus(path.read_bytes())
        missing = max(0, -surplus)
        if surplus > 0:
            raise _BeyondLibsndfile("an MP3 longer than its header says, perhaps several in one")
    elif container == "OGG" and is_chained_ogg(path.read_bytes()):
        raise _BeyondLibsndfile("several Ogg streams in one file")
    if missing:
        raise ValueError(f"{name}: truncated, {missing} bytes of audio are missing")


def _decode_container(path: Path, name: str) -> Samples:
    """What libsndfile cannot decode, or only a part of."""
    with path.open("rb") as file:
        missing = container_missing_bytes(file)
    if missing:
        raise ValueError(f"{name}: truncated, {missing} bytes are missing")
    collected = _Resampled()
    with closing(containers.decode(path, name)) as blocks:
        for block, rate in blocks:
            _check_rate(rate, name)
            collected.change_rate(rate)
            collected.add(block)
    return collected.samples()
