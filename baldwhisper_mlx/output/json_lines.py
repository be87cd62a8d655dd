"""Files of JSON lines that a program appends to, so that an interrupted run resumes."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO


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
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    with path.open("a+b") as file:
        _remove_unfinished(file)
        file.write(text.encode("utf-8"))


def _remove_unfinished(file: BinaryIO) -> None:
    if file.seek(0, os.SEEK_END) == 0:
        return
    file.seek(-1, os.SEEK_END)
    if file.read() != b"\n":
        file.seek(0)
        file.truncate(file.read().rfind(b"\n") + 1)
