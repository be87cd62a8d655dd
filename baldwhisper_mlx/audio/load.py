"""Audio files to 16 kHz samples. Decoding and resampling are soundfile's, PyAV's and soxr's.

libsndfile decodes what is not compressed, and FLAC: it loads at once. FFmpeg's libraries decode
the rest, and whatever of the former is damaged.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import numpy as np
import soundfile

from baldwhisper_mlx.audio.buffer import Samples
from baldwhisper_mlx.audio.ffmpeg import decode_container
from baldwhisper_mlx.audio.integrity import missing_bytes, wav_data
from baldwhisper_mlx.audio.recording import (
    MAX_DURATION,
    LoadOptions,
    OnWarning,
    Recording,
    warn,
)
from baldwhisper_mlx.audio.source import no_check, open_source

_BLOCK = 2**20
"""Samples decoded at a time."""
_MAX_FRAMES = 2**48
"""More than any file has; libsndfile says so where a FLAC gives no length."""
_MP3_START = re.compile(rb"\xff[\xe2-\xff]")
_SAMPLE_BYTES = {
    "PCM_S8": 1, "PCM_U8": 1, "PCM_16": 2, "PCM_24": 3, "PCM_32": 4, "FLOAT": 4, "DOUBLE": 8,
    "ULAW": 1, "ALAW": 1,
}  # fmt: skip
"""Bytes of a sample, by the formats that libsndfile decodes here."""


def load_audio(
    source: str | Path | BinaryIO,
    *,
    track: int | None = None,
    channels: str = "mix",
    max_duration: float = MAX_DURATION,
    strict: bool = False,
    check: Callable[[], None] = no_check,
    on_warning: OnWarning = warn,
) -> Samples:
    """Decodes an audio file to mono at 16 kHz.

    wav, flac, mp3, ogg, opus, m4a, wma, amr, video and many others. Audio that starts late and
    gaps in it become silence, by the file's own times. So do damaged parts; a file that is cut
    off, or damaged, is decoded as far as possible, with a `MissingAudioWarning`.

    Args:
        source: a path, also of a pipe; or a binary stream that is read to its end.
        track: number of the audio track, from 1; None for the default one, or else the first.
        channels: "mix" for the mean (or one of them, if they cancel out), "left" or "right".
        max_duration: seconds; a longer recording is refused.
        strict: refuse files in which audio is missing.
        check: called before every block; what it raises ends the decoding.
        on_warning: called with each `AudioWarning`; by default it is issued as a warning of Python.

    Returns:
        Samples (n,), float32, full scale at 1.0.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a folder, a device, no audio in it, NaN samples, an unknown format, a longer
            recording, no such track.
    """
    if channels == "split":
        raise ValueError("channels: load_audio gives one channel; load_channels gives each")
    options = LoadOptions(
        track=track,
        channels=channels,
        max_duration=max_duration,
        strict=strict,
        check=check,
        on_warning=on_warning,
    )
    return _load(source, options)[0]


def load_channels(
    source: str | Path | BinaryIO,
    *,
    track: int | None = None,
    max_duration: float = MAX_DURATION,
    strict: bool = False,
    check: Callable[[], None] = no_check,
) -> list[Samples]:
    """Decodes each channel of an audio file by itself.

    Args, Raises:
        As for `load_audio`; also ValueError for more than 8 channels.

    Returns:
        Samples (n,) of each channel, 16 kHz, float32, full scale at 1.0.
    """
    options = LoadOptions(
        track=track, channels="split", max_duration=max_duration, strict=strict, check=check
    )
    return _load(source, options)


def load_pcm(
    source: BinaryIO,
    rate: int,
    *,
    max_duration: float = MAX_DURATION,
    check: Callable[[], None] = no_check,
) -> Samples:
    """Raw PCM as samples at 16 kHz.

    Args:
        source: of signed 16-bit little-endian numbers, one channel; read to its end.
        rate: of the samples, in Hz.
        max_duration: seconds; a longer recording is refused.
        check: called before every block; what it raises ends the reading.

    Returns:
        Samples (n,), float32, full scale at 1.0.

    Raises:
        ValueError: nothing in it, half a number, an impossible rate, a longer recording.
    """
    recording = Recording("raw PCM", LoadOptions(max_duration=max_duration, check=check))
    recording.check_rate(rate)
    size, half = 0, b""
    while data := source.read(2 * _BLOCK):
        check()
        size += len(data)
        data = half + data
        whole = len(data) // 2 * 2
        half = data[whole:]  # a socket may give part of a number
        numbers = np.frombuffer(data[:whole], "<i2")
        recording.add((numbers.astype(np.float32) / np.float32(32768))[None], rate)
    if not size:
        raise ValueError("raw PCM: there is no audio")
    if size % 2:
        raise ValueError(f"raw PCM: {size} bytes are no whole number of 16-bit samples")
    return recording.finish()[0]


def _load(source: str | Path | BinaryIO, options: LoadOptions) -> list[Samples]:
    with open_source(source, options.check) as (file, name):
        try:
            return _decode_soundfile(file, name, options)
        except soundfile.LibsndfileError:
            is_endless_wav = False
        except _BeyondLibsndfile as error:
            is_endless_wav = error.is_endless_wav
        file.seek(0)
        return decode_container(file, name, options, is_endless_wav=is_endless_wav)


class _BeyondLibsndfile(Exception):
    """libsndfile cannot decode the file, or would decode a part of it and call that the whole."""

    def __init__(self, reason: str, *, is_endless_wav: bool = False) -> None:
        super().__init__(reason)
        self.is_endless_wav = is_endless_wav


class _Straight(soundfile.SoundFile):  # type: ignore[misc]
    """Reads on without a seek after every block, which would spoil the next one."""

    def seekable(self) -> bool:
        """No."""
        return False


def _decode_soundfile(file: io.FileIO, name: str, options: LoadOptions) -> list[Samples]:
    wav = wav_data(file)
    if wav is not None and (wav.is_unknown or wav.is_too_short):
        raise _BeyondLibsndfile("a WAV header with a wrong size", is_endless_wav=True)
    file.seek(0)
    head = file.read(4)
    if head == b"OggS" or head[:3] == b"ID3" or _MP3_START.match(head):
        raise _BeyondLibsndfile("compressed")  # without libmpg123's own messages
    file.seek(0)
    with _Straight(file.fileno(), closefd=False) as sound:
        kind, n_channels, rate = sound.subtype, sound.channels, sound.samplerate
        if kind not in _SAMPLE_BYTES and sound.format != "FLAC":
            raise _BeyondLibsndfile("compressed")
        if sound.frames > _MAX_FRAMES:
            raise _BeyondLibsndfile("written into a pipe, so that its length is unknown")
        if (options.track or 1) > 1:
            raise ValueError(f"{name}: there is no audio track {options.track} in it, only one")
        recording = Recording(name, options)
        recording.check_rate(rate)
        recording.check_length(sound.frames / rate)
        n_frames = _add_all(sound, recording)
        expected, log, container = sound.frames, sound.extra_info, sound.format
    if n_frames == 0 and expected:
        raise _BeyondLibsndfile("nothing of it can be read")
    if container == "FLAC" and n_frames < expected:
        raise _BeyondLibsndfile("damaged or cut off")
    missing = missing_bytes(log, container) / (n_channels * _SAMPLE_BYTES.get(kind, 1)) / rate
    missing = max(missing, (expected - n_frames) / rate)
    if n_frames and missing > 0:
        recording.missing(f"cut off: {missing:.1f} s of audio are missing at its end")
    return recording.finish()


def _add_all(sound: soundfile.SoundFile, recording: Recording) -> int:
    """Decodes all frames, block by block, and returns their number."""
    n_frames = 0
    size = max(1, _BLOCK // sound.channels)
    while True:
        recording.options.check()
        block = sound.read(size, dtype="float32", always_2d=True)
        n_frames += len(block)
        recording.add(block.T, sound.samplerate)
        if not len(block) or (len(block) < size and n_frames >= sound.frames):
            return n_frames
