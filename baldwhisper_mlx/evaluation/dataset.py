"""Labelled speech: clips with their transcripts and speakers."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from baldwhisper_mlx.audio.buffer import Samples
from baldwhisper_mlx.audio.speech_dataset import Row, audio_of, decode_audio, read_rows

SPEAKER_COLUMNS = ("speaker", "speaker_id", "client_id")
_CHUNK = 2**20


@dataclass(frozen=True)
class Clip:
    """One recording and its transcript; the audio is encoded."""

    name: str
    """File name below the folder of the data, or number in the dataset."""
    audio: str | bytes
    """Path of the file, or its content."""
    text: str
    speaker: str | None

    def samples(self) -> Samples:
        """Decodes the audio: mono at 16 kHz.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the audio cannot be decoded; the message names the file or clip.
        """
        return decode_audio(self.audio, self.name)

    def digest(self) -> str:
        """What identifies the audio in any folder: the start of its SHA-256.

        Raises:
            OSError: the file cannot be read.
        """
        digest = hashlib.sha256()
        if isinstance(self.audio, bytes):
            digest.update(self.audio)
        else:
            with Path(self.audio).open("rb") as file:
                while block := file.read(_CHUNK):
                    digest.update(block)
        return digest.hexdigest()[:32]


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where labelled speech is, and the names of its columns."""

    name: str
    """Folder, list or hub id; see `read_rows`."""
    split: str = "test"
    text_column: str = "text"
    audio_column: str = "audio"
    speaker_column: str | None = None
    """Default: the first of `SPEAKER_COLUMNS` that is there, if any."""
    limit: int | None = None
    """Only the first clips."""


class Speech:
    """Clips of a source, which can be iterated many times; none is kept in memory.

    Args:
        source: what to read.

    Raises:
        FileNotFoundError: no such folder, file or dataset.
        ValueError: a list that cannot be read.
        ModuleNotFoundError: a hub dataset, and the package `datasets` is not installed.
    """

    def __init__(self, source: Source) -> None:
        self.source = source
        self._rows, self._base = read_rows(
            source.name, split=source.split, audio_column=source.audio_column
        )

    def __len__(self) -> int:
        """Number of clips."""
        return len(range(len(self._rows))[: self.source.limit])

    def __iter__(self) -> Iterator[Clip]:
        """The clips, in the order of the source.

        Raises:
            ValueError: a column is missing, or a row has no text or no audio; names them.
        """
        for number, row in enumerate(islice(self._rows, self.source.limit), start=1):
            yield self._clip(row, f"{self.source.name}, row {number}")

    def _clip(self, row: Row, where: str) -> Clip:
        source = self.source
        for column in (source.text_column, source.speaker_column):
            if column is not None and column not in row:
                columns = ", ".join(map(str, row))
                raise ValueError(f"{source.name}: no column {column!r}; it has {columns}")
        audio = audio_of(row, source.audio_column, self._base)
        if audio is None:
            raise ValueError(f"{where}: no audio in it")
        if row[source.text_column] is None:  # an empty text is a text: the clip has no speech
            raise ValueError(f"{where}: no text in it")
        names = (source.speaker_column,) if source.speaker_column else SPEAKER_COLUMNS
        speaker = next((row[name] for name in names if row.get(name) not in (None, "")), None)
        return Clip(
            name=self._name(audio) or where,
            audio=audio,
            text=str(row[source.text_column]),
            speaker=None if speaker is None else str(speaker),
        )

    def _name(self, audio: str | bytes) -> str | None:
        if isinstance(audio, bytes):
            return None
        path = Path(audio)
        below = self._base is not None and path.is_relative_to(self._base)
        return path.relative_to(self._base).as_posix() if below and self._base else audio

    def missing_files(self) -> list[str]:
        """Names of a list's clips whose file is not there.

        Raises:
            ValueError: see `__iter__`.
        """
        if self._base is None:
            return []  # a dataset of the hub has its audio in it
        return [
            clip.name
            for clip in self
            if isinstance(clip.audio, str) and not Path(clip.audio).is_file()
        ]
