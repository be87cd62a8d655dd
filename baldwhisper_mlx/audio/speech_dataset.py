"""Reads labelled speech: local folders, lists of files, and Hugging Face datasets.

Training and `baldwhisper evaluate` both read their data here, so that they agree on it. Audio stays
encoded until it is used. Standard library only, except for decoding and for Hub datasets.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from baldwhisper_mlx.audio.buffer import Samples
from baldwhisper_mlx.audio.load import load_audio

Row = dict[str, Any]

_DELIMITERS = {".csv": ",", ".tsv": "\t"}
LIST_SUFFIXES = (*_DELIMITERS, ".json", ".jsonl")
"""Endings of the lists of files that can be read."""


def read_rows(
    source: str, *, split: str = "train", audio_column: str = "audio", streaming: bool = False
) -> tuple[Sequence[Row], Path | None]:
    """Reads the rows of a data set; no audio is decoded.

    Args:
        source: a folder in `audiofolder` form (audio files beside metadata.jsonl or .csv) or of
            parquet files, a CSV, TSV, JSON or JSONL file of paths and texts (paths are relative
            to the file), or a Hub id, `owner/name` or `owner/name:config`.
        split: of a Hub dataset or of a folder with splits.
        audio_column: of a Hub dataset.
        streaming: read a Hub dataset without downloading it first.

    Returns:
        Rows in the order of the source, which can be iterated more than once (streamed ones have
        no length); and the folder that paths in them are relative to, None for a Hub dataset.

    Raises:
        FileNotFoundError: no such folder, file or dataset.
        ValueError: a list that cannot be read.
        ModuleNotFoundError: a Hub dataset, and the package `datasets` is not installed.
    """
    path = _list_of(Path(source).expanduser(), split)
    if path.suffix in LIST_SUFFIXES:
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such file")
        return list(_listed(path)), path.parent
    name, _, config = source.partition(":")
    if path.is_dir():
        name, config = str(path), ""
        if next(path.rglob("*.parquet"), None) is None:
            raise FileNotFoundError(
                f"{path}: no metadata.jsonl or metadata.csv in it or in its folder {split!r}, "
                "and no parquet files below it"
            )
    elif path.is_absolute() or source.startswith(("./", "../", "~")) or name.count("/") > 1:
        raise FileNotFoundError(f"{path}: no such folder")
    try:
        from datasets import Audio, load_dataset
    except ModuleNotFoundError:
        what = "a folder of parquet files" if path.is_dir() else "no such folder; a Hub dataset"
        raise ModuleNotFoundError(
            f"{source}: {what} needs the package datasets: pip install datasets"
        ) from None

    data = load_dataset(name, config or None, split=split, streaming=streaming)
    if audio_column in (data.column_names or ()):
        data = data.cast_column(audio_column, Audio(decode=False))
    return data, None


def audio_of(row: Row, column: str, base: Path | None) -> str | bytes | None:
    """Path or content of a row's audio; None if it has neither.

    Args:
        row: from `read_rows`.
        column: of the audio; in a list, the columns `file_name`, `path` and `audio_filepath` are
            tried, too.
        base: from `read_rows`.
    """
    names = (column, "file_name", "path", "audio_filepath") if base else (column,)
    audio = next((row[name] for name in names if row.get(name)), None)
    if isinstance(audio, dict):  # of a Hub dataset
        path, content = audio.get("path"), audio.get("bytes")
        return str(path) if path and Path(path).is_file() else content
    if audio is None or base is None:
        return None
    return str(base / str(audio))


def decode_audio(audio: str | bytes, name: str) -> Samples:
    """Decodes a row's audio: mono at 16 kHz.

    Args:
        audio: path of a file, or its content.
        name: of the row, for errors if the audio has no path.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the audio cannot be decoded, or some of it is missing, so that its text does not
            fit.
    """
    if isinstance(audio, str):
        return load_audio(audio, strict=True)
    try:
        return load_audio(io.BytesIO(audio), strict=True)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def _list_of(path: Path, split: str) -> Path:
    """The list of an `audiofolder` folder, at its top or in the split's folder; else the path.

    Such a folder is read as a list, because the reader of `datasets` needs torchcodec even if
    nothing is decoded.
    """
    lists = (
        folder / f"metadata{suffix}"
        for folder in (path, path / split)
        for suffix in (".jsonl", ".csv")
        if (folder / f"metadata{suffix}").is_file()
    )
    return next(lists, path) if path.is_dir() else path


def _listed(path: Path) -> Iterator[Row]:
    """Rows of a list. Values of a CSV stay text: "null" and "7" may be transcripts.

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
                raise ValueError(f"row {number} is not a JSON object")
            yield row
    except (ValueError, csv.Error) as error:
        raise ValueError(f"{path}: cannot be read as a list ({error})") from None
