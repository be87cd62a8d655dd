"""Audio files to 16 kHz samples. Decoding and resampling are soundfile's, ffmpeg's and soxr's."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
import soundfile
import soxr

from baldwhisper_mlx.audio.buffer import Collector, Samples, is_finite
from baldwhisper_mlx.audio.integrity import (
    caf_missing_bytes,
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

    wav, flac, ogg, opus, mp3 and the like go through soundfile; what it does not know
    (m4a, mp4, webm) goes through ffmpeg, if that is installed.

    Args:
        source: a path, or a binary stream that is read to its end.

    Returns:
        Samples (n,), float32, full scale at 1.0; channels are averaged.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a folder, no audio in it, a cut-off file, NaN samples, an unknown format.
    """
    if not isinstance(source, (str, Path)):
        # Formats are told by their content, lengths by the file's: both want a file.
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

    def __init__(self, rate: int) -> None:
        self._collector = Collector()
        self._stream = None
        if rate != SAMPLE_RATE:
            self._stream = soxr.ResampleStream(rate, SAMPLE_RATE, 1, dtype="float32")

    def add(self, samples: Samples) -> None:
        if self._stream is not None:
            samples = self._stream.resample_chunk(samples)
        self._collector.add(samples)

    def samples(self) -> Samples:
        """All of them; nothing can be added after that."""
        if self._stream is not None:
            self._collector.add(self._stream.resample_chunk(np.zeros(0, np.float32), last=True))
        return self._collector.samples()


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
    except (soundfile.LibsndfileError, _BeyondLibsndfile) as error:
        if missing := caf_missing_bytes(_head(path), size):
            raise ValueError(f"{name}: truncated, {missing} bytes of audio are missing") from None
        samples = _decode_ffmpeg(path, name, str(error))
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
        raise _BeyondLibsndfile("several Ogg streams, one after the other")
    if missing:
        raise ValueError(f"{name}: truncated, {missing} bytes of audio are missing")


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(2**20)


def _decode_ffmpeg(path: Path, name: str, reason: str) -> Samples:
    ffmpeg = shutil.which("ffmpeg")
    if ffmpeg is None:
        raise ValueError(
            f"{name}: cannot be read without ffmpeg ({reason}); install ffmpeg, "
            "which m4a, mp4, webm and other formats need"
        )
    command = [ffmpeg, "-nostdin", "-v", "error", "-i", f"file:{path}", "-map", "0:a:0"]
    command += ["-f", "f32le", "-ac", "1", "-ar", str(SAMPLE_RATE), "-"]
    samples, code, log = _read_pipe(command)
    if re.search("partial file|ended prematurely", log):  # exit code 0 all the same
        raise ValueError(f"{name}: truncated, its end is missing")
    if code != 0:
        lines = log.strip().splitlines() or ["no message"]
        raise ValueError(f"{name}: neither libsndfile nor ffmpeg can decode it ({lines[-1]})")
    return samples


def _read_pipe(command: Sequence[str]) -> tuple[Samples, int, str]:
    """What a program writes as float32, its exit code, and what it says."""
    collected = Collector()
    with tempfile.TemporaryFile() as errors:
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors) as process:
            assert process.stdout is not None
            while data := process.stdout.read(4 * _BLOCK):
                collected.add(np.frombuffer(data[: len(data) // 4 * 4], np.float32))
        errors.seek(0)
        log = errors.read().decode(errors="replace")
    return collected.samples(), process.returncode, log
