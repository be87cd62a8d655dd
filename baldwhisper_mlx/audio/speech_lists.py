"""Lists of labelled speech, CSV, TSV, JSON and JSONL, as rows. Standard library only.

A row that cannot be read is a `BadRow`, so that it can be counted and named like a row without
text. What makes the whole list doubtful, such as an unclosed quote, is an error.
"""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Row = dict[str, Any]

_DELIMITERS = {".csv": ",", ".tsv": "\t"}
LIST_SUFFIXES = (*_DELIMITERS, ".json", ".jsonl")
"""Endings of the lists of files that can be read."""

_UTF16 = (b"\xff\xfe", b"\xfe\xff")


class BadRow(dict[str, Any]):
    """A row that cannot be read; it has no columns.

    Args:
        reason: what is wrong with it.
        name: what the row is called in its list, or what else helps to find it; may be empty.
    """

    def __init__(self, reason: str, name: str = "") -> None:
        super().__init__()
        self.reason, self.name = reason, name


def read_list(path: Path) -> Iterator[Row]:
    """Rows of a list, in its order; a row that cannot be read is a `BadRow`.

    Values of a CSV or TSV stay text: "null" and "7" may be transcripts. A TSV has no quoting, as
    in Common Voice: a sentence may begin with a quotation mark. A byte order mark and Windows line
    ends are allowed.

    Raises:
        ValueError: the list as a whole cannot be read; names it and says why.
        OSError: the file cannot be opened.
    """
    content = path.read_bytes()
    if content.startswith(_UTF16):
        raise ValueError(f"{path}: cannot be read as a list (UTF-16 text; save it as UTF-8)")
    # Bytes that are no UTF-8 become surrogates, by which their rows are found.
    text = content.decode("utf-8-sig", errors="surrogateescape")
    try:
        rows = _table(path, text) if path.suffix in _DELIMITERS else _objects(text)
        for row in rows:
            yield BadRow("not UTF-8 text") if _has_surrogates(row) else row
    except (ValueError, csv.Error, RecursionError) as error:
        raise ValueError(f"{path}: cannot be read as a list ({error})") from None


def _table(path: Path, text: str) -> Iterator[Row]:
    """Rows of a CSV or TSV."""
    # Only line feeds and carriage returns end a line, unlike in str.splitlines.
    lines = iter(text.replace("\r\n", "\n").replace("\r", "\n").split("\n"))
    separated = (f"{line}\n" for line in lines)
    if path.suffix == ".tsv":
        reader = csv.reader(separated, delimiter="\t", quoting=csv.QUOTE_NONE)
    else:
        reader = csv.reader(separated, strict=True)
    header: list[str] | None = None
    begun = 1
    try:
        for cells in reader:
            if cells and header is None:
                header = _checked(cells)
            elif cells and header is not None:
                if len(cells) > len(header):
                    yield BadRow(
                        "more cells than columns", f"{len(cells)} cells, {len(header)} columns"
                    )
                else:  # a row may lack its last columns; those that it needs are missed later
                    yield dict.fromkeys(header) | dict(zip(header, cells, strict=False))
            begun = reader.line_num + 1
    except csv.Error as error:
        raise ValueError(f"line {begun}: {error}; check its quotation marks") from None


def _checked(names: list[str]) -> list[str]:
    """The header of a table.

    Raises:
        ValueError: a column is there twice.
    """
    names = [name.strip() for name in names]
    twice = [name for name, count in Counter(names).items() if count > 1 and name]
    if twice:
        raise ValueError(f"the column {twice[0]!r} is there twice; rename one of them")
    return names


def _objects(text: str) -> Iterator[Row]:
    """Rows of a JSON list, or of JSON lines.

    Raises:
        ValueError: a JSON list that is damaged.
    """
    if text.lstrip().startswith("["):
        yield from map(_object, json.loads(text, object_pairs_hook=_pairs))
        return
    for line in text.split("\n"):
        if line.strip():
            try:
                yield _object(json.loads(line, object_pairs_hook=_pairs))
            except (ValueError, RecursionError) as error:
                yield BadRow("not JSON", str(error))


def _object(value: Any) -> Row:
    return value if isinstance(value, dict) else BadRow("not a JSON object")


def _pairs(pairs: list[tuple[str, Any]]) -> Row:
    row = dict(pairs)
    if len(row) == len(pairs):
        return row
    twice = next(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
    return BadRow("a key is there twice", twice)


def _has_surrogates(row: Row) -> bool:
    """Whether any text of a row cannot be written as UTF-8."""
    try:
        for key, value in row.items():
            key.encode()
            if isinstance(value, str):
                value.encode()
    except UnicodeEncodeError:
        return True
    return False
