"""Which columns of labelled speech hold text and audio, and what they hold in a row."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from baldwhisper_mlx.audio.folders import SUFFIXES
from baldwhisper_mlx.audio.speech_folders import Excerpt
from baldwhisper_mlx.audio.speech_lists import BadRow, Row

Audio = str | bytes | Excerpt
"""Encoded audio: the path of a file, its content, or a part of a file."""

TEXT_COLUMNS = (
    "text", "sentence", "transcription", "transcript", "normalized_text", "raw_text",
    "raw_transcription", "transcriptions", "normalized_transcription", "utterance_text", "txt",
)  # fmt: skip
"""Names of the column of the transcripts that are found; `text` is preferred to the others."""
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


@dataclass(frozen=True)
class Columns:
    """The columns that are read."""

    text: str | None
    """None if no text is read."""
    audio: tuple[str, ...]
    """The first of them that a row has is taken."""
    note: str = ""
    """What was chosen, for people; empty if nothing had to be."""


def find_columns(
    source: str, names: Sequence[str], text: str | None, audio: str, *, sampled: Row | None = None
) -> Columns:
    """Finds the columns of the text and the audio.

    Args:
        source: name of the data, for messages.
        names: of the columns that there are.
        text: the wanted column. `text`, which is the default of all commands, is the column of
            that name, or else the only other one of `TEXT_COLUMNS`. None to read no text.
        audio: the wanted column; for `audio`, one of `AUDIO_COLUMNS` is found.
        sampled: a row, by whose values an audio column of another name is found.

    Raises:
        ValueError: a column is not there, or several could be the text; names them.
    """
    there = f"it has {', '.join(names) or 'no columns'}"
    by_name = {name.lower(): name for name in reversed(names)}
    notes = []
    found_text = text
    if text is not None and text not in names:
        if text != TEXT_COLUMNS[0]:
            raise ValueError(f"{source}: no column {text!r}; {there}")
        found = [by_name[name] for name in TEXT_COLUMNS if name in by_name]
        if not found:
            raise ValueError(
                f"{source}: no column {', '.join(TEXT_COLUMNS[:4])} or the like; {there}. Name "
                "the column of the transcripts: --text-column, or text_column in a recipe"
            )
        if len(found) > 1 and by_name.get(TEXT_COLUMNS[0]) != found[0]:
            raise ValueError(
                f"{source}: the text may be in the columns {', '.join(found)}; name one: "
                "--text-column, or text_column in a recipe"
            )
        found_text = found[0]
        notes.append(f"text from the column {found_text!r}")
    elif text == TEXT_COLUMNS[0]:
        others = [by_name[name] for name in TEXT_COLUMNS[1:] if name in by_name]
        if others:
            notes.append(f"text from the column 'text', not from {', '.join(others)}")
    audio_names = _audio_columns(audio, names, by_name, sampled)
    if not audio_names:
        wanted = (
            "" if audio != AUDIO_COLUMNS[0] else f", {', '.join(AUDIO_COLUMNS[1:4])} or similar"
        )
        raise ValueError(
            f"{source}: no column {audio!r}{wanted} for the audio; {there}. Name it: "
            "--audio-column, or audio_column in a recipe"
        )
    if audio_names[0] not in AUDIO_COLUMNS[:4] and audio_names[0] != audio:
        notes.append(f"audio from the column {audio_names[0]!r}")
    return Columns(found_text, audio_names, f"{source}: {', '.join(notes)}" if notes else "")


def _audio_columns(
    wanted: str, names: Sequence[str], by_name: dict[str, str], sampled: Row | None
) -> tuple[str, ...]:
    if wanted != AUDIO_COLUMNS[0]:
        return (wanted,) if wanted in names else ()
    found = [by_name[name] for name in AUDIO_COLUMNS if name in by_name]
    return tuple(found) or tuple(
        name for name in names if sampled and isinstance(_plain(sampled.get(name)), dict | bytes)
        and (not isinstance(sampled[name], dict) or {"bytes", "array"} & sampled[name].keys())
    )  # fmt: skip


@dataclass(frozen=True)
class Item:
    """What a row holds."""

    where: str
    """Source and number of the row, counted from 1."""
    row: Row
    audio: Audio | None
    text: str | None
    """Without surrounding white space; may be empty. None if no text is read, or in a bad row."""
    fault: str = ""
    """Why the row cannot be used; empty if it can."""

    @property
    def name(self) -> str:
        """File of the audio; without one, `where`."""
        return (
            self.where if self.audio is None or isinstance(self.audio, bytes) else str(self.audio)
        )


def read_item(row: Row, columns: Columns, base: Path | None, where: str) -> Item:
    """What a row holds, or why it cannot be used. Audio is not decoded.

    Args:
        row: of a source.
        columns: from `find_columns`.
        base: folder that paths are relative to; None for data of the Hub.
        where: source and number of the row.
    """
    if isinstance(row, BadRow):
        where = f"{where} ({row.name})" if row.name else where
        return Item(where, row, None, None, row.reason)
    audio, text, fault = None, None, ""
    try:
        audio = audio_of(row, columns.audio, base)
        if columns.text is not None:
            text = _text(row.get(columns.text))
    except ValueError as error:
        fault = str(error)
    if not fault and audio is None:
        fault = "without audio"
    if not fault and columns.text is not None and text is None:
        fault = "without text"
    return Item(where, row, audio, text, fault)


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
    value = next((row[name] for name in names if not _is_missing(row.get(name))), None)
    value = _plain(value)
    if value is None or isinstance(value, (Excerpt, bytes)):
        return value
    if isinstance(value, dict):
        return _of_struct(value, base)
    if isinstance(value, (list, np.ndarray)):
        return _wav(value, row.get("sampling_rate", row.get("sample_rate")))
    if not isinstance(value, (str, Path)):
        raise ValueError(f"its audio is {type(value).__name__}, and neither a path nor content")
    path = _found(str(value), base)
    if "audio_filepath" in row and not (_is_missing(row.get("offset"))):  # of NeMo
        return _part(path, _plain(row["offset"]), _plain(row.get("duration")))
    return path


def _part(path: str, offset: Any, duration: Any) -> Excerpt:
    """A part of a recording, by seconds from its start, and its length."""
    if not (_is_number(offset) and _is_number(duration) and offset >= 0 and duration > 0):
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
    rate = _plain(rate)
    if not _is_number(rate) or int(rate) != rate or int(rate) not in _RATES:
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


def _text(value: Any) -> str | None:
    """The text of a cell; None if it has none.

    Raises:
        ValueError: a value of another type.
    """
    value = _plain(value)
    if _is_missing(value) and value != "":
        return None
    if not isinstance(value, str):
        raise ValueError(f"its text is {type(value).__name__} and not a string")
    return value.strip()


def _plain(value: Any) -> Any:
    """A scalar of NumPy as one of Python, and any other value as it is."""
    return value.item() if isinstance(value, np.generic) else value


def _is_number(value: Any) -> bool:
    """Whether it is a number that is finite and not huge."""
    real = isinstance(value, (int, float)) and not isinstance(value, bool)
    return real and bool(-_MOST < value < _MOST)


def _is_missing(value: Any) -> bool:
    """Whether a cell holds nothing: None, an empty text, or NaN, as pandas writes it."""
    value = _plain(value)
    return value is None or (isinstance(value, str) and not value) or (
        isinstance(value, float) and value != value
    )  # fmt: skip


Say = Callable[[str], None]
"""Receives a line for people."""


def say_nothing(_: str) -> None:
    """Ignores a line."""
