"""Folders of labelled speech that are neither a list nor Arrow data: Kaldi's, and tar shards.

Standard library only, besides the decoding of excerpts.
"""

from __future__ import annotations

import json
import os
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import overload

from baldwhisper_mlx.audio.speech_lists import BadRow, Row

_PARENTS = 3
"""Folders above a Kaldi folder that its paths may be relative to, such as that of a recipe."""


@dataclass(frozen=True)
class Excerpt:
    """A part of a recording."""

    path: str
    start: float
    """Seconds."""
    end: float
    """Seconds; infinite for the end of the recording."""

    def __str__(self) -> str:
        return f"{self.path} [{self.start:.2f} s to {self.end:.2f} s]"


def is_kaldi(folder: Path) -> bool:
    """Whether a folder is a data folder of Kaldi: it has a `wav.scp`."""
    return (folder / "wav.scp").is_file()


def read_kaldi(folder: Path) -> Iterator[Row]:
    """Rows of a Kaldi folder: `wav.scp`, and where there are any `text`, `segments`, `utt2spk`.

    Args:
        folder: that `is_kaldi`. Paths are relative to it, to a folder above it, or to the working
            directory, whichever has the file.

    Yields:
        Rows with `utterance`, `audio`, `text` and `speaker`, in the order of `segments` or
        `wav.scp`; with speakers, `run` names the recording that a segment is of. An utterance that
        another file lacks is a `BadRow`.

    Raises:
        FileNotFoundError: no `wav.scp`.
        ValueError: a file that is not UTF-8.
    """
    recordings, texts = _table(folder, "wav.scp"), _table(folder, "text")
    segments, speakers = _table(folder, "segments"), _table(folder, "utt2spk")
    if recordings is None:
        raise FileNotFoundError(f"{folder}: no wav.scp in it")
    utterances = recordings if segments is None else segments
    for name, value in utterances:
        if isinstance(value, BadRow):
            yield value
            continue
        row: Row = {"utterance": name}
        record, start, end = name, 0.0, float("inf")
        if segments is not None:
            try:
                record, *times = value.split()
                start, end = map(float, times)
            except ValueError:
                yield BadRow("its segment is not a recording, a start and an end", name)
                continue
            end = float("inf") if end == -1 else end
            if not 0 <= start < end:
                yield BadRow("its segment does not end after it begins", name)
                continue
        audio = _audio(folder, recordings.get(record))
        if isinstance(audio, BadRow):
            yield BadRow(audio.reason, name)
            continue
        row["audio"] = Excerpt(audio, start, end) if segments is not None else audio
        if texts is not None:
            row["text"] = texts.get(name, "")
        if speakers is not None:
            row["speaker"] = speakers.get(name)
            row |= {"run": record} if segments is not None else {}
        yield row
    for name, _ in texts or ():
        if name not in utterances:
            missing = "wav.scp" if segments is None else "segments"
            yield BadRow(f"is in text, but not in {missing}", name)


class _Table:
    """A file of Kaldi: a key and a value on each line."""

    def __init__(self, path: Path) -> None:
        self._rows: list[tuple[str, str | BadRow]] = []
        self._values: dict[str, str] = {}
        try:
            lines = path.read_text(encoding="utf-8-sig").split("\n")
        except UnicodeDecodeError as error:
            raise ValueError(f"{path}: not UTF-8 text ({error})") from None
        for line in lines:
            key, *rest = line.strip().split(maxsplit=1)[:2] or [""]
            value = rest[0] if rest else ""
            if key in self._values:
                self._rows.append((key, BadRow(f"is in {path.name} twice", key)))
            elif key:
                self._rows.append((key, value))
                self._values[key] = value

    def __iter__(self) -> Iterator[tuple[str, str | BadRow]]:
        return iter(self._rows)

    def __contains__(self, key: str) -> bool:
        return key in self._values

    @overload
    def get(self, key: str) -> str | None: ...
    @overload
    def get(self, key: str, default: str) -> str: ...
    def get(self, key: str, default: str | None = None) -> str | None:
        """The value of a key."""
        return self._values.get(key, default)


def _table(folder: Path, name: str) -> _Table | None:
    return _Table(folder / name) if (folder / name).is_file() else None


def _audio(folder: Path, value: str | None) -> str | BadRow:
    """Path of a recording; absolute, because whoever reads a relative one takes the folder for its
    start."""
    if not value:
        return BadRow("its recording is not in wav.scp")
    if value.endswith("|"):
        return BadRow(
            "wav.scp has a command for it, and commands are not run; write its output to a file "
            "and name the file there"
        )
    path, _, offset = value.rpartition(":")
    if path.endswith(".ark") and offset.isdecimal():
        return BadRow("wav.scp names a Kaldi archive for it; name an audio file there")
    places = [folder, *list(folder.resolve().parents)[:_PARENTS], Path()]
    found = (os.path.abspath(place / value) for place in places if os.path.isfile(place / value))
    return next(found, value)


class TarRows(Sequence[Row]):
    """Rows of tar shards in the layout of webdataset; content is read when a row is.

    Files of the same name up to the first dot are a row, and their endings its columns. Keys of a
    `json` are columns, too, and `txt` is text.

    Args:
        shards: the tar files, uncompressed.

    Raises:
        ValueError: a file that is no tar file.
    """

    def __init__(self, shards: Sequence[Path]) -> None:
        self._rows: list[tuple[str, Path, dict[str, tuple[int, int]]] | BadRow] = []
        for shard in shards:
            files: dict[str, dict[str, tuple[int, int]]] = {}
            bad: list[BadRow] = []
            try:
                with tarfile.open(shard, "r:") as tar:
                    for member in tar:
                        folder, base = os.path.split(member.name)
                        key, dot, column = base.partition(".")
                        if member.isfile() and key and dot:
                            place = (member.offset_data, member.size)
                            files.setdefault(os.path.join(folder, key), {})[column.lower()] = place
            except tarfile.TarError as error:
                if not files:
                    raise ValueError(f"{shard}: cannot be read as a tar file ({error})") from None
                files.popitem()  # the one that was being read
                bad = [BadRow("the shard is cut off or damaged here", str(shard))]
            self._rows += [(key, shard, columns) for key, columns in files.items()]
            self._rows += bad

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Row]: ...
    def __getitem__(self, index: int | slice) -> Row | Sequence[Row]:
        if isinstance(index, slice):
            return [self[i] for i in range(len(self))[index]]
        found = self._rows[index]
        if isinstance(found, BadRow):
            return found
        key, shard, columns = found
        row: Row = {"__key__": key}
        with shard.open("rb") as file:
            for column, (offset, size) in columns.items():
                file.seek(offset)
                content = file.read(size)
                if len(content) < size:
                    return BadRow("the shard is cut off", f"{shard}, {key}")
                row[column] = content
        try:
            for column in ("txt", "text", "transcript"):
                if column in row:
                    row[column] = row[column].decode("utf-8-sig")
            fields = json.loads(row.pop("json", b"{}"))
        except ValueError as error:
            return BadRow("its text cannot be read", f"{key}: {error}")
        if not isinstance(fields, dict):
            return BadRow("its json is not an object", key)
        return {name: value for name, value in fields.items() if name not in row} | row
