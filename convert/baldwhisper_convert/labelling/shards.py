"""The labelled set on the disk, a file for some hundred rows of the source.

A shard is one parquet file: the labels that are kept, and in its metadata what became of every row.
It is written under a temporary name and renamed, and is named by its rows. So a shard is there as a
whole or not at all, whoever was killed, and one that is made twice replaces itself. Until all are
there, they lie in a hidden folder, which no reader takes for a data set.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from baldwhisper_convert.locks import LOCK_FILE
from baldwhisper_mlx.files import TEMPORARY_FILES, atomic_file, read_json, write_atomically

LARGEST, SMALLEST, SHARDS = 256, 16, 32
"""Rows of a shard at most and at least, and how many shards there should be at least."""

SETTINGS_FILE, SUMMARY_FILE, DROPPED_FILE = ".label.json", "summary.json", "dropped.jsonl"
_UNFINISHED, _FINISHED = ".unfinished", "train"
_REPORT = b"baldwhisper"


@dataclass
class Report:
    """What became of the rows of a shard, or of all."""

    rows: int = 0
    kept: int = 0
    seconds: float = 0.0
    """Of audio, in all rows that could be decoded."""
    kept_seconds: float = 0.0
    working_seconds: float = 0.0
    """That workers read, labelled and wrote."""
    cpu_seconds: float = 0.0
    """Of CPUs in that time."""
    dropped: list[dict[str, Any]] = field(default_factory=list)
    """Row, name, reason, and for a label that was not kept its text and measures."""

    def add(self, other: Report) -> None:
        """Adds the figures of another one, without its rows."""
        for name in ("rows", "kept", "seconds", "kept_seconds", "working_seconds", "cpu_seconds"):
            setattr(self, name, getattr(self, name) + getattr(other, name))


class LabelledSet:
    """A folder of labelled speech.

    Args:
        folder: of the set.
        rows: number of rows of the source.
        shard_rows: number of rows that a shard is made of, which is what is lost when a worker is
            killed. By default 256, or fewer if there would be few shards to distribute.
    """

    def __init__(self, folder: Path, rows: int, shard_rows: int | None = None) -> None:
        self.folder, self.rows = folder, rows
        self.shard_rows = shard_rows or min(LARGEST, max(SMALLEST, rows // SHARDS))

    @property
    def is_finished(self) -> bool:
        """Whether all shards are there."""
        return (self.folder / _FINISHED).is_dir()

    def begin(self, settings: dict[str, Any]) -> None:
        """Makes the folder, or checks that it was made with these settings.

        Raises:
            FileExistsError: it was made with others, or holds something else.
        """
        path = self.folder / SETTINGS_FILE
        own = {LOCK_FILE, SETTINGS_FILE, SUMMARY_FILE, DROPPED_FILE, _UNFINISHED, _FINISHED}
        there = {entry.name for entry in self.folder.iterdir()} if self.folder.is_dir() else set()
        if there - (own if path.is_file() else {LOCK_FILE}):
            raise FileExistsError(f"{self.folder}: holds something else; give another folder")
        before = read_json(path) if path.is_file() else {}
        made = next((self.folder / _FINISHED).glob("*"), None) or next(
            (self.folder / _UNFINISHED).glob("*.parquet"), None
        )
        different = [key for key in settings if made and before.get(key) != settings[key]]
        if different:
            key = different[0]
            raise FileExistsError(
                f"{self.folder}: labelled with other settings ({key} was {before.get(key)}, and "
                f"is {settings[key]}); give another folder, or remove this one"
            )
        if not self.is_finished:
            (self.folder / _UNFINISHED).mkdir(parents=True, exist_ok=True)
            self._tidy()
        write_atomically(path, json.dumps(settings, indent=2) + "\n")

    def __len__(self) -> int:
        """Number of shards."""
        return -(-self.rows // self.shard_rows)

    def rows_of(self, shard: int) -> range:
        """Numbers of the rows of a shard, from 0."""
        start = shard * self.shard_rows
        return range(start, min(start + self.shard_rows, self.rows))

    def missing(self) -> list[int]:
        """Numbers of the shards that are not there yet."""
        return [shard for shard in range(len(self)) if not self._path(shard).is_file()]

    def write(self, shard: int, rows: Sequence[dict[str, Any]], features: Any, one: Report) -> None:
        """Writes a shard.

        Args:
            shard: its number.
            rows: that are kept.
            features: of `Table`.
            one: what became of all its rows.

        Raises:
            ValueError: a value does not fit its column.
            OSError: the file cannot be written.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        schema = features.arrow_schema
        report = json.dumps(asdict(one)).encode()
        schema = schema.with_metadata({**(schema.metadata or {}), _REPORT: report})
        with (
            atomic_file(self._path(shard)) as temporary,
            pq.ParquetWriter(temporary, schema) as writer,
        ):
            if rows:  # `datasets` cannot read a row group without rows
                writer.write_table(pa.Table.from_pylist(list(rows), schema=schema))

    def reports(self) -> Iterator[Report]:
        """What became of the rows of each shard, in their order.

        Raises:
            ValueError: a shard is missing or damaged.
        """
        import pyarrow.parquet as pq

        for shard in range(len(self)):
            path = self._path(shard)
            try:
                yield Report(**json.loads(pq.read_schema(path).metadata[_REPORT]))
            except (OSError, ValueError, KeyError, TypeError) as error:
                raise ValueError(
                    f"{path}: not a whole shard ({error}); remove it and run the command again"
                ) from None

    def finish(self) -> dict[str, Any]:
        """Writes the summary and the list of dropped rows, and makes the set visible.

        Returns:
            The summary: the figures of a `Report`, and the number of `dropped` rows by reason.

        Raises:
            ValueError: a shard is missing or damaged, or nothing was kept.
        """
        total, reasons = Report(), Counter[str]()
        with (
            atomic_file(self.folder / DROPPED_FILE) as temporary,
            temporary.open("w", encoding="utf-8") as file,
        ):
            for one in self.reports():
                total.add(one)
                for row in one.dropped:
                    reasons[row["reason"]] += 1
                    file.write(json.dumps(row, ensure_ascii=False) + "\n")
            if not total.rows == total.kept + sum(reasons.values()) == self.rows:
                raise ValueError(
                    f"{self.folder}: {self.rows} rows in the source, but the shards are made of "
                    f"{total.rows}; remove the folder and run the command again"
                )
            if total.kept and not self.is_finished:
                self._tidy()
                (self.folder / _UNFINISHED).rename(self.folder / _FINISHED)
        summary = asdict(total) | {"dropped": dict(reasons.most_common())}
        write_atomically(self.folder / SUMMARY_FILE, json.dumps(summary, indent=2) + "\n")
        if not total.kept:
            raise ValueError(f"{self.folder}: no label was kept; {DROPPED_FILE} there says why")
        return summary

    def _tidy(self) -> None:
        """Removes what killed workers were writing."""
        for left in (self.folder / _UNFINISHED).glob(TEMPORARY_FILES):
            left.unlink(missing_ok=True)

    def _path(self, shard: int) -> Path:
        inside = _FINISHED if self.is_finished else _UNFINISHED
        return self.folder / inside / f"{shard:06}.parquet"
