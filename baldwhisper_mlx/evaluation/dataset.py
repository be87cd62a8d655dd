"""Labelled speech: clips with their transcripts and speakers."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from baldwhisper_mlx.audio.buffer import Samples
from baldwhisper_mlx.audio.speech_columns import Say, say_nothing
from baldwhisper_mlx.audio.speech_dataset import Audio, Excerpt, Item, SpeechData, decode_audio

SPEAKER_COLUMNS = ("speaker", "speaker_id", "client_id")
_CHUNK = 2**20


@dataclass(frozen=True)
class Clip:
    """One recording and its transcript; the audio is encoded."""

    name: str
    """File name below the folder of the data, or number in the dataset."""
    audio: Audio
    """Path of the file, its content, or a part of a file."""
    text: str
    speaker: str | None
    fault: str = ""
    """Why the row cannot be used, if it cannot."""

    def samples(self) -> Samples:
        """Decodes the audio: mono at 16 kHz.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the audio cannot be decoded, or the row is bad; names the file or clip.
        """
        self._check()
        return decode_audio(self.audio, self.name)

    def digest(self) -> str:
        """What identifies the audio in any folder: the start of its SHA-256.

        Raises:
            OSError: the file cannot be read.
            ValueError: the row is bad; names the clip.
        """
        self._check()
        digest, audio = hashlib.sha256(), self.audio
        if isinstance(audio, bytes):
            digest.update(audio)
        else:
            if isinstance(audio, Excerpt):
                digest.update(f"{audio.start} {audio.end} ".encode())
            with Path(audio.path if isinstance(audio, Excerpt) else audio).open("rb") as file:
                while block := file.read(_CHUNK):
                    digest.update(block)
        return digest.hexdigest()[:32]

    def _check(self) -> None:
        if self.fault:
            raise ValueError(f"{self.name}: {self.fault}")


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
    streaming: bool = False
    """Read a Hub dataset while it is downloaded, without storing it."""


class Speech:
    """Clips of a source, which can be iterated many times; none is kept in memory.

    Args:
        source: what to read.
        skip_bad: give bad rows as clips with a `fault`, which are then left out.
        say: receives a line about columns that were found.

    Raises:
        FileNotFoundError: no such folder, file or dataset.
        ValueError: a list that cannot be read, or a column is missing; names it.
        ModuleNotFoundError: a hub dataset, and the package `datasets` is not installed.
    """

    def __init__(self, source: Source, *, skip_bad: bool = False, say: Say = say_nothing) -> None:
        self.source, self._skip_bad = source, skip_bad
        self._data = SpeechData(
            source.name,
            split=source.split,
            text_column=source.text_column,
            audio_column=source.audio_column,
            streaming=source.streaming,
            say=say,
        )

    @property
    def text_column(self) -> str:
        """The column of the transcripts."""
        return self._data.columns.text or self.source.text_column

    @property
    def count(self) -> int | None:
        """Number of clips; of streamed data the limit, or None if there is none."""
        if not self._data.has_length:
            return self.source.limit
        return len(range(len(self._data))[: self.source.limit])

    def __iter__(self) -> Iterator[Clip]:
        """The clips, in the order of the source.

        Raises:
            ValueError: a row has no text or no audio, or cannot be read, unless such rows are
                skipped; or the column of the speakers is missing.
        """
        for item in islice(self._data, self.source.limit):
            clip = self._clip(item)
            if clip.fault and not self._skip_bad:
                raise ValueError(f"{item.where}: {clip.fault}; --skip-bad leaves such rows out")
            yield clip

    def _clip(self, item: Item) -> Clip:
        column, row = self.source.speaker_column, item.row
        if item.fault or item.audio is None or item.text is None:
            return Clip(item.where, b"", "", None, item.fault)
        if column is not None and column not in row:
            columns = ", ".join(map(str, row))
            raise ValueError(f"{self.source.name}: no column {column!r}; it has {columns}")
        names = SPEAKER_COLUMNS if column is None else (column,)
        speaker = next((row[name] for name in names if row.get(name) not in (None, "")), None)
        return Clip(
            name=self._name(item),
            audio=item.audio,
            text=item.text,  # an empty text is a text: the clip has no speech
            speaker=None if speaker is None else str(speaker),
        )

    def _name(self, item: Item) -> str:
        base, name = self._data.base, item.name
        if isinstance(item.audio, bytes) or base is None:
            return name
        below = name.removeprefix(f"{base}{os.sep}")
        return Path(below).as_posix() if below != name else name

    def missing_files(self) -> list[str]:
        """Names of a list's clips whose file is not there.

        Raises:
            ValueError: see `__iter__`.
        """
        if not self._data.is_list:
            return []  # a dataset of the hub has its audio in it
        missing = []
        for clip in self:
            audio = clip.audio
            path = audio.path if isinstance(audio, Excerpt) else audio
            if isinstance(path, str) and not os.path.isfile(path):
                missing.append(clip.name)
        return missing
