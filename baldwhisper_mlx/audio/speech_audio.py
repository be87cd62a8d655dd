"""The audio of a row of labelled speech, which stays encoded until it is used."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from baldwhisper_mlx.audio.folders import SUFFIXES
from baldwhisper_mlx.audio.speech_folders import Excerpt
from baldwhisper_mlx.audio.speech_lists import Row

Audio = str | bytes | Excerpt
"""Encoded audio: the path of a file, its content, or a part of a file."""

AUDIO_COLUMNS = (
    "audio", "file_name", "path", "audio_filepath", "filename", "file", "audio_path", "audio_file",
    "wav_filename", "wav", "flac", "mp3", "ogg", "opus", "m4a", "speech", "clip",
)  # fmt: skip
"""Names of the column of the audio that are found, the first of them that a row has."""

_CLIPS = "clips"
"""Folder of the audio beside the lists of Common Voice."""
_MOST_CHANNELS = 32
_MOST = 1e9
_RATES = range(1_000, 768_001)
"""Sampling rates of arrays, in Hz."""


def audio_of(row: Row, column: str | Iterable[str], base: Path | None) -> Audio | None:
    """Path or content of a row's audio; None if it has neither.

    An array becomes the content of a WAV file.

    Args:
        row: from `read_rows`.
        column: of the audio, or several, of which the first with a value counts; for `audio`, all
            `AUDIO_COLUMNS` are tried.
        base: from `read_rows`.

    Raises:
        ValueError: a value that is no audio.
    """
    names = AUDIO_COLUMNS if column == AUDIO_COLUMNS[0] else column
    names = (names,) if isinstance(names, str) else names
    value = next((row[name] for name in names if not is_missing(row.get(name))), None)
    value = plain(value)
    if value is None or isinstance(value, (Excerpt, bytes)):
        return value
    if isinstance(value, dict):
        return _of_struct(value, base)
    if isinstance(value, (list, np.ndarray)):
        return _wav(value, row.get("sampling_rate", row.get("sample_rate")))
    if not isinstance(value, (str, Path)):
        raise ValueError(f"its audio is {type(value).__name__}, and neither a path nor content")
    path = _found(str(value), base)
    if "audio_filepath" in row and not (is_missing(row.get("offset"))):  # of NeMo
        return _part(path, plain(row["offset"]), plain(row.get("duration")))
    return path


def _part(path: str, offset: Any, duration: Any) -> Excerpt:
    """A part of a recording, by seconds from its start, and its length."""
    if not (is_number(offset) and is_number(duration) and offset >= 0 and duration > 0):
        raise ValueError("its offset and duration are no seconds")
    return Excerpt(path, float(offset), float(offset) + float(duration))


def _of_struct(value: dict[str, Any], base: Path | None) -> Audio | None:
    """Audio of a column of Hugging Face datasets, which is not decoded."""
    path, content, array = value.get("path"), value.get("bytes"), value.get("array")
    if path and os.path.isfile(found := _found(str(path), base)):
        return found
    if content is not None:
        if not isinstance(content, bytes):
            raise ValueError(f"its audio has {type(content).__name__} as content, not bytes")
        return content
    if array is not None:
        return _wav(array, value.get("sampling_rate"))
    return _found(str(path), base) if path else None


def _found(name: str, base: Path | None) -> str:
    """The file that a path of a list means: also in `clips`, and also without its ending."""
    if base is None:
        return name
    places = (base / name, base / _CLIPS / name)
    known = Path(name).suffix.lower() in SUFFIXES
    for ending in ("",) if known else ("", ".mp3", ".wav", ".flac", *sorted(SUFFIXES)):
        for place in places:
            # os.path takes what is no name of a file for one that is not there.
            if os.path.isfile(path := f"{place}{ending}"):
                return path
    return str(places[0])


def _wav(array: Any, rate: Any) -> bytes:
    """An array of samples as a WAV file, at its own rate.

    Args:
        array: (n,), (channels, n) or (n, channels), whole numbers of 16 bits or -1 to 1.
        rate: in Hz.

    Raises:
        ValueError: no such array or rate.
    """
    rate = plain(rate)
    if not is_number(rate) or int(rate) != rate or int(rate) not in _RATES:
        raise ValueError(f"its audio is an array with a sampling rate of {rate!r}")
    try:
        samples = np.asarray(array)
        if samples.dtype.kind in "iu" and samples.size and np.abs(samples).max() < 2**15:
            samples = samples.astype(np.int16)  # also where Arrow made other integers of them
        else:
            with np.errstate(over="ignore"):  # an infinite sample is refused below
                samples = samples.astype(np.float32)
    except (TypeError, ValueError, OverflowError):
        raise ValueError("its audio is an array of something else than numbers") from None
    if samples.ndim == 2 and samples.shape[0] < samples.shape[1]:
        samples = samples.T
    if samples.ndim not in (1, 2) or (samples.ndim == 2 and samples.shape[1] > _MOST_CHANNELS):
        raise ValueError(f"its audio is an array of shape {samples.shape}")
    if not samples.size:
        raise ValueError("its audio has no samples")
    if not np.isfinite(samples).all():
        raise ValueError("its audio has samples that are no numbers (NaN or infinite)")
    file = io.BytesIO()
    subtype = "PCM_16" if samples.dtype == np.int16 else "FLOAT"
    soundfile.write(file, samples, int(rate), format="WAV", subtype=subtype)
    return file.getvalue()


def plain(value: Any) -> Any:
    """A scalar of NumPy as one of Python, and any other value as it is."""
    return value.item() if isinstance(value, np.generic) else value


def is_number(value: Any) -> bool:
    """Whether it is a number that is finite and not huge."""
    real = isinstance(value, (int, float)) and not isinstance(value, bool)
    return real and bool(-_MOST < value < _MOST)


def is_missing(value: Any) -> bool:
    """Whether a cell holds nothing: None, an empty text, or NaN, as pandas writes it."""
    value = plain(value)
    return value is None or (isinstance(value, str) and not value) or (
        isinstance(value, float) and value != value
    )  # fmt: skip
