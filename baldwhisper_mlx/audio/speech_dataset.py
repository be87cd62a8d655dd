"""Reads labelled speech: local folders, lists of files, and Hugging Face datasets.

Training and `baldwhisper evaluate` both read their data here, so that they agree on it. Audio stays
encoded until it is used. No package but `datasets` is needed, and that one only for Arrow data.
"""

from __future__ import annotations

import functools
import io
import os
from collections.abc import Iterator, Sequence, Sized
from itertools import islice
from pathlib import Path

from baldwhisper_mlx.audio.buffer import Samples
from baldwhisper_mlx.audio.load import load_audio
from baldwhisper_mlx.audio.speech_arrow import is_saved, read_arrow, reason
from baldwhisper_mlx.audio.speech_audio import Audio, audio_of
from baldwhisper_mlx.audio.speech_columns import (
    Columns,
    Item,
    Say,
    find_columns,
    read_item,
    say_nothing,
)
from baldwhisper_mlx.audio.speech_folders import Excerpt, TarRows, is_kaldi, read_kaldi
from baldwhisper_mlx.audio.speech_lists import LIST_SUFFIXES, Row, read_list
from baldwhisper_mlx.config import SAMPLE_RATE

__all__ = [
    "LIST_SUFFIXES", "Audio", "Excerpt", "Item", "Row", "SpeechData", "audio_of", "decode_audio",
    "read_rows",
]  # fmt: skip

_SAMPLED = 100
"""Rows of a list whose keys are taken for its columns."""


class SpeechData:
    """What the rows of a source hold; can be iterated many times, and keeps no audio.

    Args:
        source: see `read_rows`.
        split: see `read_rows`.
        text_column: see `find_columns`.
        audio_column: see `find_columns`.
        streaming: see `read_rows`.
        say: receives a line about columns that were found.

    Raises:
        FileNotFoundError, ValueError, ModuleNotFoundError: as `read_rows` and `find_columns`.
    """

    def __init__(
        self,
        source: str,
        *,
        split: str,
        text_column: str | None = "text",
        audio_column: str = "audio",
        streaming: bool = False,
        say: Say = say_nothing,
    ) -> None:
        self.source = source
        self.rows, self.base = read_rows(
            source, split=split, audio_column=audio_column, streaming=streaming
        )
        self.columns = Columns(text_column, (audio_column,))
        try:
            sampled = [row for row in islice(self.rows, _SAMPLED if self.is_list else 1) if row]
        except ImportError as error:  # the first row of a stream needs a package
            raise ValueError(f"{source}: cannot be read as a dataset ({reason(error)})") from None
        names = getattr(self.rows, "column_names", None) or list(
            dict.fromkeys(name for row in sampled for name in row)
        )
        if names:  # otherwise there are no rows, or bad ones only
            self.columns = find_columns(
                source, names, text_column, audio_column, sampled=next(iter(sampled), None)
            )
        if self.columns.note:
            say(self.columns.note)

    @property
    def is_list(self) -> bool:
        """Whether the rows are in memory, and their audio is not."""
        return isinstance(self.rows, list)

    @property
    def has_length(self) -> bool:
        """Whether the number of rows is known: streamed data has to be read to its end for it."""
        return isinstance(self.rows, Sized)

    def __len__(self) -> int:
        """Number of rows; streamed data has none."""
        return len(self.rows)

    def __iter__(self) -> Iterator[Item]:
        for number, row in enumerate(self.rows):
            yield self._item(number, row)

    def __getitem__(self, number: int) -> Item:
        """What the row of a number holds, from 0; streamed data has no such access."""
        return self._item(number, self.rows[number])

    def _item(self, number: int, row: Row) -> Item:
        return read_item(row, self.columns, self.base, f"{self.source}, row {number + 1}")


def read_rows(
    source: str, *, split: str = "train", audio_column: str = "audio", streaming: bool = False
) -> tuple[Sequence[Row], Path | None]:
    """Reads the rows of a data set; no audio is decoded.

    Args:
        source: a CSV, TSV, JSON or JSONL file of paths and texts (paths are relative to the file
            or to the folder `clips` beside it); a folder in `audiofolder` form (audio files beside
            metadata.jsonl or .csv), of Common Voice, of Kaldi, of `save_to_disk`, of parquet files
            or of tar shards in webdataset's form; a parquet or tar file; or a Hub id,
            `owner/name` or `owner/name:config`, or the same of a local copy.
        split: of a dataset or of a folder with splits; a file, and data that has none, is read
            whatever it is.
        audio_column: of a Hub dataset.
        streaming: read a Hub dataset without downloading it first.

    Returns:
        Rows in the order of the source, which can be iterated more than once (streamed ones have
        no length), with a `BadRow` for each that cannot be read; and the folder that paths in them
        are relative to, None for a Hub dataset.

    Raises:
        FileNotFoundError: no such folder, file or dataset.
        ValueError: a list or dataset that cannot be read, or has no such split.
        ModuleNotFoundError: Arrow data, and the package `datasets` is not installed.
    """
    path, is_folder, is_file = _within(Path(source).expanduser(), split)
    if path.suffix in LIST_SUFFIXES and not is_folder:
        if not is_file:
            raise FileNotFoundError(f"{path}: no such file")
        return list(read_list(path)), path.parent
    if path.suffix == ".tar" and is_file:
        return TarRows([path]), path.parent
    if is_folder and is_kaldi(path):
        return list(read_kaldi(path)), path
    if is_folder and (shards := sorted(path.glob("*.tar"))):
        return TarRows(shards), path
    name, _, config = source.partition(":")
    if not is_folder and not is_file:
        if config and Path(name).expanduser().is_dir():
            path = Path(name).expanduser()
            return read_arrow(source, (str(path), config), split, streaming), path
        local = path.is_absolute() or source.startswith(("./", "../", "~")) or name.count("/") > 1
        if local or path.suffix in (".tar", ".parquet"):
            raise FileNotFoundError(f"{path}: no such {'file' if path.suffix else 'folder'}")
        return read_arrow(source, (name, config or None), split, streaming), None
    if is_file and path.suffix != ".parquet":
        raise ValueError(
            f"{path}: not a list of speech; expected a name that ends with "
            f"{', '.join(LIST_SUFFIXES)}, .parquet or .tar"
        )
    if is_folder and not is_saved(path) and not _holds_parquet(path):
        raise FileNotFoundError(
            f"{path}: no metadata.jsonl or metadata.csv in it or in its folder {split!r}, no "
            f"{split}.tsv, no wav.scp, no tar files, not made by save_to_disk, and no parquet "
            "files below it"
        )
    return read_arrow(source, path, split, streaming), path if is_folder else path.parent


def decode_audio(audio: Audio, name: str) -> Samples:
    """Decodes a row's audio: mono at 16 kHz.

    Args:
        audio: path of a file, its content, or a part of a file.
        name: of the row, for errors if the audio has no path.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the audio cannot be decoded, or some of it is missing, so that its text does not
            fit.
    """
    if isinstance(audio, str):
        return load_audio(audio, strict=True)
    if isinstance(audio, Excerpt):
        return _excerpt(audio)
    try:
        return load_audio(io.BytesIO(audio), strict=True)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def _excerpt(excerpt: Excerpt) -> Samples:
    """Decodes a part of a recording."""
    try:
        status = os.stat(excerpt.path)
    except (OSError, ValueError):
        whole = load_audio(excerpt.path, strict=True)  # says what is wrong
    else:
        whole = _whole(excerpt.path, status.st_mtime_ns, status.st_size)
    start = round(excerpt.start * SAMPLE_RATE)
    end = len(whole) if excerpt.end == float("inf") else round(excerpt.end * SAMPLE_RATE)
    # Times of segments are rounded, often to hundredths of a second.
    if start >= len(whole) or end > len(whole) + SAMPLE_RATE // 10:
        seconds = len(whole) / SAMPLE_RATE
        raise ValueError(f"{excerpt}: the recording lasts {seconds:.2f} s only")
    excerpted: Samples = whole[start:end].copy()
    return excerpted


@functools.lru_cache(maxsize=1)
def _whole(path: str, mtime: int, size: int) -> Samples:
    """A recording, kept for the next excerpt, which is mostly of the same one."""
    return load_audio(path, strict=True)


def _within(path: Path, split: str) -> tuple[Path, bool, bool]:
    """What a path is read as, and whether that is a folder or a file.

    In a folder, it is the list or the folder of the split, if there is one. An `audiofolder` is
    read as a list, because the reader of `datasets` needs torchcodec even if nothing is decoded.
    """
    try:
        if not path.is_dir():
            return path, False, path.is_file()
        lists = [folder / f"metadata{suffix}" for folder in (path, path / split)
                 for suffix in (".jsonl", ".csv")]  # fmt: skip
        lists += [path / f"{split}{suffix}" for suffix in (".tsv", ".csv", ".jsonl", ".json")]
        found = next((item for item in lists if item.is_file()), None)
    except (OSError, ValueError):  # too long for a name, or a null character in it
        return path, False, False
    if found:
        return found, False, True
    inside = path / split
    return (path if _holds_speech(path) or not _holds_speech(inside) else inside), True, False


def _holds_parquet(folder: Path) -> bool:
    """Whether parquet files are below a folder; hidden ones are no data, as for `datasets`."""
    files = (file.relative_to(folder) for file in folder.rglob("*.parquet"))
    return any(not any(part.startswith(".") for part in file.parts) for file in files)


def _holds_speech(folder: Path) -> bool:
    """Whether a folder is one of Kaldi, or of tar shards."""
    return is_kaldi(folder) or next(folder.glob("*.tar"), None) is not None
