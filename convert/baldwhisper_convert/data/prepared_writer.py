"""Writes prepared data so that a killed run loses nothing.

A window's line is written after its features, so what a killed run left is whole up to its last
line, and the next run goes on from there.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
from pathlib import Path
from typing import Any, BinaryIO, TextIO

import torch

from baldwhisper_convert.data.prepared import (
    FEATURES_FILE,
    MEL,
    NUMBER_BYTES,
    SETTINGS_FILE,
    WINDOWS_FILE,
    PreparedWindow,
    read_windows,
)
from baldwhisper_mlx.files import read_json, write_atomically


class PreparedWriter:
    """Writes prepared data, or goes on with what an interrupted run left.

    Args:
        folder: where.
        key: identifies the settings; going on needs the same.
        features: `STATES` or `MEL`.
        width: d, or n_mels.

    Raises:
        FileExistsError: the folder holds data of other settings, or something else.
    """

    def __init__(self, folder: Path, *, key: str, features: str, width: int) -> None:
        self.folder = folder
        self._settings = {"key": key, "features": features, "width": width, "complete": False}
        self.complete = False
        if (folder / SETTINGS_FILE).is_file():
            found = read_json(folder / SETTINGS_FILE)
            if found.get("key") != key:
                raise FileExistsError(f"{folder}: made with other settings; give another")
            self.complete = bool(found.get("complete"))
        elif folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
            raise FileExistsError(f"{folder}: exists and is no prepared data")
        folder.mkdir(parents=True, exist_ok=True)
        if not self.complete:
            self._write_settings()
        self.done: list[PreparedWindow] = []
        self._numbers = 0
        stored = _size(folder / FEATURES_FILE) // NUMBER_BYTES
        for window in read_windows(folder):
            # A crash of the machine, unlike one of the program, may lose features before lines.
            end = self._numbers + window.positions * (2 if features == MEL else 1) * width
            if end > stored:
                break
            self.done.append(window)
            self._numbers = end
        self.count = len(self.done)
        """Windows written so far."""

    def __enter__(self) -> PreparedWriter:
        self._features: BinaryIO = open(self.folder / FEATURES_FILE, "ab")
        self._lines: TextIO = open(self.folder / WINDOWS_FILE, "a", encoding="utf-8")
        self._features.truncate(self._numbers * NUMBER_BYTES)
        self._lines.truncate(_length(self.folder / WINDOWS_FILE, len(self.done)))
        return self

    def __exit__(self, *_: object) -> None:
        self._features.close()
        self._lines.close()

    def add(self, window: PreparedWindow, features: torch.Tensor) -> None:
        """Appends a window; its offset is filled in.

        Raises:
            ValueError: features that float16 does not hold.
        """
        half = features.detach().cpu().to(torch.float16).contiguous()
        if not bool(torch.isfinite(half).all()):
            raise ValueError(f"{window.source}: features are not finite in float16")
        self._features.write(half.numpy().tobytes())
        self._features.flush()
        line = dataclasses.asdict(dataclasses.replace(window, offset=self._numbers))
        self._lines.write(json.dumps(line, ensure_ascii=False) + "\n")
        self._lines.flush()
        self._numbers += half.numel()
        self.count += 1

    def finish(self, **report: Any) -> None:
        """Marks the data complete, and keeps a report of how it was made."""
        for file in (self._features, self._lines):
            os.fsync(file.fileno())
        self._settings |= {"complete": True, "report": report}
        self.complete = True
        self._write_settings()

    def _write_settings(self) -> None:
        text = json.dumps(self._settings, indent=2) + "\n"
        write_atomically(self.folder / SETTINGS_FILE, text)


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _length(path: Path, lines: int) -> int:
    """Bytes of the first lines of a file."""
    with path.open("rb") as file:
        return sum(len(line) for line in itertools.islice(file, lines))
