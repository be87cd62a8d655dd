"""Files of JSON lines that a program appends to, so that an interrupted run resumes."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO

from baldwhisper_mlx.files import write_atomically


def read_json_lines(path: Path) -> list[Any]:
    """The rows of a file; none if it does not exist.

    A last line without its end, which an interrupted program leaves, is left out.

    Raises:
        ValueError: another line is not JSON; the message names the file and the line.
    """
    if not path.is_file():
        return []
    *lines, _ = path.read_bytes().split(b"\n")
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            rows.append(json.loads(line))
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path}: line {number} is damaged ({error})") from None
    return rows


def append_json_lines(path: Path, rows: Iterable[Any]) -> None:
    """Appends rows to a file; once this returns, they outlive the process.

    A last line without its end is removed first. It would make one damaged line with the next row.

    Raises:
        OSError: the file cannot be written.
    """
    with path.open("a+b") as file:
        _remove_unfinished(file)
        file.write(_text(rows).encode("utf-8"))


def write_json_lines(path: Path, rows: Iterable[Any]) -> None:
    """Writes a file of rows, whole or not at all.

    Raises:
        OSError: it cannot be written.
    """
    write_atomically(path, _text(rows))


def _text(rows: Iterable[Any]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _remove_unfinished(file: BinaryIO) -> None:
    if file.seek(0, os.SEEK_END) == 0:
        return
    file.seek(-1, os.SEEK_END)
    if file.read() != b"\n":
        file.seek(0)
        file.truncate(file.read().rfind(b"\n") + 1)
