"""Audio files to 16 kHz samples. Decoding and resampling are soundfile's, ffmpeg's and soxr's."""

from __future__ import annotations

import io
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

from baldwhisper_mlx.config import SAMPLE_RATE
from baldwhisper_mlx.integrity import (
    caf_missing_bytes,
    is_chained_ogg,
    missing_bytes,
    mp3_surplus,
)
from baldwhisper_mlx.samples import Collector, Samples, is_finite

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
    if isinstance(source, (str, Path)):
        name = str(source)
        path = Path(source)
        if path.is_dir():
            raise ValueError(f"{name}: is a folder, not an audio file")
        if not path.exists():
            raise FileNotFoundError(f"{name}: no such file")
        data: bytes | Path = path
        size = path.stat().st_size
    else:
        name = str(getattr(source, "name", "<stream>"))
        data = source.read()
        size = len(data)
    if size == 0:
        raise ValueError(f"{name}: the file is empty")
    try:
        samples = _decode_soundfile(data, name)
    except (soundfile.LibsndfileError, _BeyondLibsndfile) as error:
        if missing := caf_missing_bytes(_read(data, 2**20), size):
            raise ValueError(f"{name}: truncated, {missing} bytes of audio are missing") from None
        samples = _decode_ffmpeg(data, name, str(error))
    if samples.size == 0:
        raise ValueError(f"{name}: contains no audio (0 samples)")
    if not is_finite(samples):
        raise ValueError(f"{name}: contains NaN or infinite samples")
    return samples


def load_pcm(data: bytes, rate: int) -> Samples:
    """Raw PCM as samples at 16 kHz.

    Args:
        data: signed 16-bit little-endian numbers, one channel.
        rate: of the samples, in Hz.

    Returns:
        Samples (n,), float32, full scale at 1.0.

    Raises:
        ValueError: nothing in it, half a number, or an impossible rate.
    """
    _check_rate(rate, "raw PCM")
    if not data:
        raise ValueError("raw PCM: there is no audio")
    if len(data) % 2:
        raise ValueError(f"raw PCM: {len(data)} bytes are no whole number of 16-bit samples")
    samples: Samples = np.frombuffer(data, "<i2").astype(np.float32) / np.float32(32768)
    if rate != SAMPLE_RATE:
        samples = soxr.resample(samples, rate, SAMPLE_RATE).astype(np.float32, copy=False)
    return samples


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


def _decode_soundfile(data: bytes | Path, name: str) -> Samples:
    with _Straight(io.BytesIO(data) if isinstance(data, bytes) else data) as file:
        expected, rate, container = file.frames, file.samplerate, file.format
        _check_rate(rate, name)
        if expected > _MAX_FRAMES:
            raise _BeyondLibsndfile("written into a pipe, so that its length is unknown")
        _check_length(data, name, container, file.extra_info)
        resampler = soxr.ResampleStream(rate, SAMPLE_RATE, 1, dtype="float32")
        collected, n_frames = Collector(), 0
        while True:
            try:
                block = file.read(_BLOCK, dtype="float32", always_2d=True)
            except soundfile.LibsndfileError as error:
                raise ValueError(f"{name}: damaged {container} audio ({error})") from None
            n_frames += len(block)
            mono = block.mean(axis=1, dtype=np.float32)
            last = not len(block) or (len(block) < _BLOCK and n_frames >= expected)
            if rate != SAMPLE_RATE and n_frames:
                mono = resampler.resample_chunk(mono, last=last)
            collected.add(mono)
            if last:
                break
    # Compressed streams only estimate their length; the others state it.
    if container not in ("MPEG", "OGG", "MP3") and n_frames < expected:
        raise ValueError(f"{name}: truncated, {n_frames} of {expected} samples can be read")
    return collected.samples()


def _check_length(data: bytes | Path, name: str, container: str, log: str) -> None:
    missing = missing_bytes(log, container)
    if container in ("MPEG", "MP3"):
        surplus = mp3_surplus(_read(data))
        missing = max(0, -surplus)
        if surplus > 0:
            raise _BeyondLibsndfile("an MP3 longer than its header says, perhaps several in one")
    elif container == "OGG" and is_chained_ogg(_read(data)):
        raise _BeyondLibsndfile("several Ogg streams, one after the other")
    if missing:
        raise ValueError(f"{name}: truncated, {missing} bytes of audio are missing")


def _read(data: bytes | Path, limit: int = -1) -> bytes:
    if isinstance(data, bytes):
        return data
    with data.open("rb") as file:
        return file.read(limit)


def _decode_ffmpeg(data: bytes | Path, name: str, reason: str) -> Samples:
    ffmpeg = shutil.which("ffmpeg")
    if ffmpeg is None:
        raise ValueError(
            f"{name}: cannot be read without ffmpeg ({reason}); install ffmpeg, "
            "which m4a, mp4, webm and other formats need"
        )
    with tempfile.TemporaryDirectory() as folder:
        if isinstance(data, bytes):  # mp4 needs a seekable file, so a pipe would not do
            path = Path(folder, "audio")
            path.write_bytes(data)
        else:
            path = data
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
