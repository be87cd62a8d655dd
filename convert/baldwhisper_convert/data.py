"""Labelled speech: Hugging Face datasets, local folders and lists of files, as utterances.

Audio stays encoded until it is used; decoding is soundfile's and ffmpeg's, through the
runtime's `load_audio`, so what trains is decoded as what is transcribed.
"""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import soundfile

from baldwhisper_mlx.audio import Samples, load_audio
from baldwhisper_mlx.config import SAMPLE_RATE

GROUP_COLUMNS = ("run", "chapter", "speaker", "speaker_id", "client_id")
"""Columns that tell whose speech goes on from one utterance to the next."""

_DELIMITERS = {".csv": ",", ".tsv": "\t"}
_LISTS = (*_DELIMITERS, ".json", ".jsonl")

_LONGEST = 24 * 3600.0
"""Seconds; headers that say more are of streams whose length was not known."""


@dataclass(frozen=True)
class Utterance:
    """One recording and its transcript."""

    name: str
    """File name, or number in the dataset, for messages."""
    audio: str | bytes
    """Path of the file, or its content."""
    text: str
    group: str = ""
    """Utterances in a row with the same group are one speaker's running speech."""

    def seconds(self) -> float:
        """Length by the file's header, or decoded where there is none.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the audio cannot be decoded.
        """
        try:
            source = self.audio if isinstance(self.audio, str) else io.BytesIO(self.audio)
            stated = float(soundfile.info(source).duration)
        except soundfile.LibsndfileError:
            stated = 0.0
        return stated if 0.0 < stated < _LONGEST else len(self.samples()) / SAMPLE_RATE

    def samples(self) -> Samples:
        """Decodes the audio: mono at 16 kHz.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the audio cannot be decoded; the message names the utterance.
        """
        if isinstance(self.audio, str):
            return load_audio(self.audio)
        try:
            return load_audio(io.BytesIO(self.audio))
        except ValueError as error:
            raise ValueError(f"{self.name}: {error}") from None


@dataclass
class BadRows:
    """What of a dataset cannot be used: counted by reason, an example each."""

    allowed: bool = False
    """Whether to go on without what is bad."""
    counts: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)

    def add(self, reason: str, what: str) -> None:
        """Counts one.

        Raises:
            ValueError: it is not allowed; names what is bad.
        """
        if not self.allowed:
            raise ValueError(f"{what}: {reason}; --skip-bad goes on without such utterances")
        self.counts[reason] += 1
        self.examples.setdefault(reason, what)

    def __str__(self) -> str:
        parts = [f"{count} {reason} (first: {self.examples[reason]})" for reason, count in
                 self.counts.items()]  # fmt: skip
        return "; ".join(parts) or "none"


def read_utterances(
    source: str,
    *,
    split: str = "train",
    text_column: str = "text",
    audio_column: str = "audio",
    bad: BadRows | None = None,
    streaming: bool = False,
) -> Iterator[Utterance]:
    """Reads labelled speech, in the order of the dataset.

    Args:
        source: a folder in `audiofolder` form (audio files beside metadata.jsonl or .csv) or of
            parquet files, a CSV, TSV, JSON or JSONL file of paths and texts (paths are relative
            to the file), or a hub id, `owner/name` or `owner/name:config`.
        split: of a hub dataset or of a folder with splits.
        text_column: column of the transcript.
        audio_column: column of the audio; a list's paths may be called `file_name` or `path`.
        bad: counts rows without text or audio.
        streaming: read a hub dataset without downloading it first.

    Raises:
        FileNotFoundError: no such folder, file or dataset.
        ValueError: a list that cannot be read, a column is missing, or a row is bad and `bad`
            does not allow it.
    """
    bad = bad or BadRows()
    rows, base = _rows(source, split, audio_column, streaming)
    for number, row in enumerate(rows):
        if text_column not in row:
            columns = ", ".join(map(str, row))
            raise ValueError(f"{source}: no column {text_column!r}; it has {columns}")
        audio = _audio(row, audio_column, base)
        name = audio if isinstance(audio, str) else f"{source}[{number}]"
        if audio is None:
            bad.add("without audio", name or f"{source}[{number}]")
        elif not str(row[text_column] or "").strip():
            bad.add("without text", name or f"{source}[{number}]")
        else:
            group = "/".join(str(row[key]) for key in GROUP_COLUMNS if row.get(key) is not None)
            yield Utterance(str(name), audio, str(row[text_column]).strip(), group)


def _rows(
    source: str, split: str, audio_column: str, streaming: bool
) -> tuple[Iterable[dict[str, Any]], Path | None]:
    """Rows with their audio undecoded, and the folder that paths in them are relative to."""
    path = _list_of(Path(source).expanduser(), split)
    if path.suffix in _LISTS:
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such file")
        return _listed(path), path.parent
    name, _, config = source.partition(":")
    if path.is_dir():
        name, config = str(path), ""
        if next(path.rglob("*.parquet"), None) is None:
            raise FileNotFoundError(
                f"{path}: no metadata.jsonl or metadata.csv in it or in its folder {split!r}, "
                "and no parquet files"
            )
    elif path.is_absolute() or source.startswith(("./", "../", "~")):
        raise FileNotFoundError(f"{path}: no such folder")
    from datasets import Audio, load_dataset

    data = load_dataset(name, config or None, split=split, streaming=streaming)
    if audio_column in (data.column_names or ()):
        data = data.cast_column(audio_column, Audio(decode=False))
    return data, None


def _list_of(path: Path, split: str) -> Path:
    """The list that an `audiofolder` folder holds, at its top or in the split's folder.

    Read as a list, because datasets' own reader of such folders needs torchcodec even where
    nothing is decoded.
    """
    found = (
        folder / f"metadata{suffix}"
        for folder in (path, path / split)
        for suffix in (".jsonl", ".csv")
        if (folder / f"metadata{suffix}").is_file()
    )
    return next(found, path) if path.is_dir() else path


def _listed(path: Path) -> Iterator[dict[str, Any]]:
    """Rows of a list. Values of a CSV stay text: "null" and "7" are words like any other.

    Raises:
        ValueError: not UTF-8, or a line that is no JSON object.
    """
    try:
        # Excel opens its CSV files with a byte order mark.
        with path.open(encoding="utf-8-sig", newline="") as file:
            if path.suffix in _DELIMITERS:
                yield from csv.DictReader(file, delimiter=_DELIMITERS[path.suffix])
                return
            content = file.read()
        whole = content.lstrip().startswith("[")
        lines = (line for line in content.split("\n") if line.strip())
        rows = json.loads(content) if whole else map(json.loads, lines)
        for number, row in enumerate(rows, start=1):
            if not isinstance(row, dict):
                raise ValueError(f"row {number} is no object")
            yield row
    except (ValueError, csv.Error) as error:
        raise ValueError(f"{path}: cannot be read as a list ({error})") from None


def _audio(row: dict[str, Any], column: str, base: Path | None) -> str | bytes | None:
    """Path or content of a row's audio; None if it has neither."""
    names = (column, "file_name", "path", "audio_filepath") if base else (column,)
    found = next((row[name] for name in names if row.get(name)), None)
    if isinstance(found, dict):
        path, content = found.get("path"), found.get("bytes")
        return str(path) if path and Path(path).is_file() else content
    if found is None or base is None:
        return None
    return str(base / str(found))
