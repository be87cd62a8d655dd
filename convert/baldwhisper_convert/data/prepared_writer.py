"""Writes prepared data so that an interrupted run can be resumed.

A window's line is written after its features, so the data of an interrupted run is complete up to
the last line, and the next run continues there.
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
    FLOAT16_BYTES,
    MEL,
    SETTINGS_FILE,
    WINDOWS_FILE,
    PreparedWindow,
    read_windows,
)
from baldwhisper_mlx.files import read_json, write_atomically


class PreparedWriter:
    """Writes prepared data, or appends to the data of an interrupted run.

    Args:
        folder: to write to; new, empty, or of an interrupted run.
        key: identifies the settings; a run is only resumed with the same ones.
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
            stored = read_json(folder / SETTINGS_FILE)
            if stored.get("key") != key:
                raise FileExistsError(
                    f"{folder}: made with other settings or data; give another folder"
                )
            self.complete = bool(stored.get("complete"))
        elif folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
            raise FileExistsError(f"{folder}: exists and is not prepared data; give another folder")
        folder.mkdir(parents=True, exist_ok=True)
        if not self.complete:
            self._write_settings()
        self.done: list[PreparedWindow] = []
        self._n_values = 0
        n_stored = _size(folder / FEATURES_FILE) // FLOAT16_BYTES
        for window in read_windows(folder):
            # After a crash of the machine, unlike one of the program, features may be missing.
            end = self._n_values + window.positions * (2 if features == MEL else 1) * width
            if end > n_stored:
                break
            self.done.append(window)
            self._n_values = end
        self.count = len(self.done)
        """Windows written so far."""

    def __enter__(self) -> PreparedWriter:
        self._features: BinaryIO = open(self.folder / FEATURES_FILE, "ab")
        self._lines: TextIO = open(self.folder / WINDOWS_FILE, "a", encoding="utf-8")
        self._features.truncate(self._n_values * FLOAT16_BYTES)
        self._lines.truncate(_length(self.folder / WINDOWS_FILE, len(self.done)))
        return self

    def __exit__(self, *_: object) -> None:
        self._features.close()
        self._lines.close()

    def add(self, window: PreparedWindow, features: torch.Tensor) -> None:
        """Appends a window and sets its offset.

        Raises:
            ValueError: features that are not finite in float16.
        """
        half = features.detach().cpu().to(torch.float16).contiguous()
        if not bool(torch.isfinite(half).all()):
            raise ValueError(
                f"{window.source}: features are not finite in float16; check the audio"
            )
        self._features.write(half.numpy().tobytes())
        self._features.flush()
        line = dataclasses.asdict(dataclasses.replace(window, offset=self._n_values))
        self._lines.write(json.dumps(line, ensure_ascii=False) + "\n")
        self._lines.flush()
        self._n_values += half.numel()
        self.count += 1

    def finish(self, **report: Any) -> None:
        """Marks the data as complete and stores a report of how it was made."""
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
    """Length in bytes of the first `lines` lines of a file."""
    with path.open("rb") as file:
        return sum(len(line) for line in itertools.islice(file, lines))
