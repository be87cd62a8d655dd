"""Recordings without text: speech to calibrate the constants of an export on, and noise."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from baldwhisper_mlx.audio.buffer import Samples
from baldwhisper_mlx.audio.folders import audio_files
from baldwhisper_mlx.audio.speech_dataset import (
    LIST_SUFFIXES,
    Row,
    audio_of,
    decode_audio,
    read_rows,
)

MOST_RECORDINGS = 6


def read_recordings(source: str | Path, most: int = MOST_RECORDINGS) -> list[Samples]:
    """Decodes a few recordings of a source.

    They are spread evenly over it, because neighbours often have the same speaker.

    Args:
        source: an audio file, a folder of audio files, or a folder or list as `read_rows` reads
            it, whose text is not used. A folder without a list is read in the order of the
            paths.
        most: number of recordings, or all if there are fewer.

    Returns:
        Samples (n,) of each, float32, mono at 16 kHz.

    Raises:
        FileNotFoundError: no such file or folder, or no recording in it.
        ValueError: a list that cannot be read, a row without audio, or a recording that cannot be
            decoded; the message names it.
    """
    path = Path(source).expanduser()
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file or folder")
    rows, base = _rows(path)
    if not len(rows):
        raise FileNotFoundError(f"{path}: lists no recordings")
    count = min(most, len(rows))
    samples = []
    for number in (i * len(rows) // count for i in range(count)):
        name = f"{path}[{number}]"
        audio = audio_of(rows[number], "audio", base)
        if audio is None:
            raise ValueError(f"{name}: without audio; expected a column file_name, path or audio")
        samples.append(decode_audio(audio, name))
    return samples


def noise_files(folder: str) -> list[Path]:
    """The recordings of noise below a folder, sorted by path; none if no folder is named.

    Raises:
        FileNotFoundError: the folder is missing or has no audio files.
    """
    if not folder:
        return []
    path = Path(folder).expanduser()
    files = audio_files(path) if path.is_dir() else []
    if not files:
        raise FileNotFoundError(f"augmentation.recordings: no audio files in {path}")
    return files


def noise_fingerprint(folder: str) -> bytes:
    """SHA-256 of each of `noise_files`, joined: what is recorded, wherever the folder is."""
    return b"".join(hashlib.sha256(path.read_bytes()).digest() for path in noise_files(folder))


def read_noise(folder: str) -> list[Samples]:
    """Decodes `noise_files`: samples (n,) of each, float32, mono at 16 kHz.

    Raises:
        FileNotFoundError: as `noise_files`.
        ValueError: a recording that cannot be decoded or is empty; the message names it.
    """
    decoded = []
    for path in noise_files(folder):
        decoded.append(decode_audio(str(path), str(path)))
        if not len(decoded[-1]):
            raise ValueError(f"{path}: holds no audio; remove it from augmentation.recordings")
    return decoded


def _rows(path: Path) -> tuple[Sequence[Row], Path | None]:
    """As `read_rows`; without a list, a row for each audio file."""
    if path.is_file() and path.suffix not in LIST_SUFFIXES:
        return [{"path": path.name}], path.parent
    try:
        return read_rows(str(path))
    except FileNotFoundError as error:
        files = audio_files(path) if path.is_dir() else []
        if not files:
            raise FileNotFoundError(f"{error}, and no audio files") from None
    return [{"path": file.relative_to(path)} for file in files], path
