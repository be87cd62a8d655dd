"""Writes prepared data so that an interrupted run can be resumed.

A window's line is written after its features, so the data of an interrupted run is complete up to
the last line, and the next run continues there. Windows that cannot be made have lines in a file of
their own until the data is complete, so that the report counts them after a resume too.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fnmatch
import itertools
import json
import os
from pathlib import Path
from typing import Any, BinaryIO, TextIO

import numpy as np
import torch

from baldwhisper_convert.data.audio_list import replaced_files
from baldwhisper_convert.data.prepared import (
    FEATURES_FILE,
    FLOAT16_BYTES,
    MEL,
    SETTINGS_FILE,
    WINDOWS_FILE,
    PreparedWindow,
    read_settings,
    read_windows,
)
from baldwhisper_convert.locks import LOCK_FILE, lock_folder
from baldwhisper_mlx.files import TEMPORARY_FILES, write_atomically
from baldwhisper_mlx.output.json_lines import append_json_lines, read_json_lines, write_json_lines

SKIPPED_FILE = "skipped.jsonl"
"""Windows that cannot be made, in data that is not complete yet."""

Values = np.ndarray[Any, np.dtype[np.float16]]


class OtherSettingsError(FileExistsError):
    """A folder holds prepared data of other settings, another teacher or other recordings."""


class PreparedWriter:
    """Writes prepared data, or appends to the data of an interrupted run.

    Args:
        folder: to write to; new, empty, or of an interrupted run.
        key: identifies the settings; a run is only resumed with the same ones.
        features: `STATES` or `MEL`.
        width: d, or n_mels.
        audio: identifies the content of the audio, see `AudioFingerprint`.
        settings: shown for data that is not complete; the report of complete data has them.
        wait: seconds to wait for another process that writes to the folder.

    Raises:
        FileExistsError: the folder holds data of other settings or audio, or something else.
        BlockingIOError: another process writes to the folder.
        ValueError: the data of the interrupted run is damaged; the message says what to delete.
    """

    def __init__(
        self,
        folder: Path,
        *,
        key: str,
        features: str,
        width: int,
        audio: str = "",
        settings: dict[str, Any] | None = None,
        wait: float = 0.0,
    ) -> None:
        self.folder, self._width, self._per_position = folder, width, 2 if features == MEL else 1
        self._settings: dict[str, Any] = {"key": key, "audio": audio}
        self._settings |= {"features": features, "width": width, "complete": False}
        if settings is not None:
            self._settings["settings"] = settings
        self.complete = False
        self.done: list[PreparedWindow] = []
        self.skipped: list[tuple[int, str, str]] = []
        """Number of each window that cannot be made, the reason, and what is bad."""
        self._n_values = 0
        if folder.exists() and not folder.is_dir():
            raise FileExistsError(f"{folder}: exists and is not prepared data; give another folder")
        self._lock = contextlib.ExitStack()
        if not self._is_complete():  # complete data is only read, perhaps where nobody may write
            self._lock.enter_context(lock_folder(folder, "prepares data", wait=wait))
        try:
            self._open()
        except BaseException:
            self._lock.close()
            raise
        if self.complete:
            self._lock.close()
        self.count = len(self.done)
        """Windows written so far."""

    def _open(self) -> None:
        """Reads what an interrupted run has done."""
        self.complete = self._is_complete()
        if not self.complete:
            if not (self.folder / SETTINGS_FILE).is_file() and _holds_files(self.folder):
                raise FileExistsError(
                    f"{self.folder}: exists and is not prepared data; give another folder"
                )
            self._write_settings()
        n_stored = _size(self.folder / FEATURES_FILE) // FLOAT16_BYTES
        for window in read_windows(self.folder):
            # After a crash of the machine, unlike one of the program, features may be missing.
            end = self._n_values + window.positions * self._per_position * self._width
            if end > n_stored:
                break
            self.done.append(window)
            self._n_values = end
        self.skipped = [item for item in read_skipped(self.folder) if item[0] < self.next_number]

    @property
    def next_number(self) -> int:
        """Number of the first window that is not done."""
        return max((window.number for window in self.done), default=-1) + 1

    def close(self) -> None:
        """Releases the folder if nothing is to be written to it."""
        self._lock.close()

    def _is_complete(self) -> bool:
        """Whether the folder holds finished data of these settings and this audio.

        Raises:
            FileExistsError: it holds data of others.
        """
        if not (self.folder / SETTINGS_FILE).is_file():
            return False
        stored = read_settings(self.folder)
        if stored["key"] != self._settings["key"]:
            raise OtherSettingsError(
                f"{self.folder}: made with other settings or data; delete it or give another folder"
            )
        # Data of earlier versions does not say which audio it was made from.
        if stored.get("audio", self._settings["audio"]) != self._settings["audio"]:
            replaced = replaced_files(self.folder, self._settings["audio"])
            raise FileExistsError(
                f"{self.folder}: made from other audio; {replaced}. Give another folder, or delete "
                "this one to prepare the data again"
            )
        return bool(stored["complete"])

    def __enter__(self) -> PreparedWriter:
        self._features: BinaryIO = open(self.folder / FEATURES_FILE, "ab")
        self._lines: TextIO = open(self.folder / WINDOWS_FILE, "a", encoding="utf-8")
        self._features.truncate(self._n_values * FLOAT16_BYTES)
        self._lines.truncate(_length(self.folder / WINDOWS_FILE, len(self.done)))
        skipped = self.folder / SKIPPED_FILE
        if skipped.exists():
            write_json_lines(skipped, self.skipped)
        return self

    def __exit__(self, *_: object) -> None:
        self._features.close()
        self._lines.close()
        self._lock.close()

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
        self.append(window, half.numpy())

    def append(self, window: PreparedWindow, values: Values) -> None:
        """As `add`, with features that are stored already, in float16."""
        self._features.write(values.tobytes())
        self._features.flush()
        line = dataclasses.asdict(dataclasses.replace(window, offset=self._n_values))
        self._lines.write(json.dumps(line, ensure_ascii=False) + "\n")
        self._lines.flush()
        self._n_values += values.size
        self.count += 1

    def skip(self, number: int, reason: str, what: str) -> None:
        """Records a window that cannot be made.

        Args:
            number: of the window.
            reason: what is wrong, as `BadRows` counts it.
            what: the file, or a message about it.
        """
        self.skipped.append((number, reason, what))
        append_json_lines(self.folder / SKIPPED_FILE, [self.skipped[-1]])

    def finish(self, **report: Any) -> None:
        """Marks the data as complete and stores a report of how it was made."""
        for file in (self._features, self._lines):
            os.fsync(file.fileno())
        self._settings.pop("settings", None)
        self._settings |= {"complete": True, "report": report}
        self.complete = True
        self._write_settings()
        (self.folder / SKIPPED_FILE).unlink(missing_ok=True)

    def _write_settings(self) -> None:
        text = json.dumps(self._settings, indent=2) + "\n"
        write_atomically(self.folder / SETTINGS_FILE, text)


def read_skipped(folder: Path) -> list[tuple[int, str, str]]:
    """Reads what `PreparedWriter.skip` recorded; an incomplete last line is left out."""
    rows = read_json_lines(folder / SKIPPED_FILE)
    return [(int(number), str(reason), str(what)) for number, reason, what in rows]


def _holds_files(folder: Path) -> bool:
    """Whether there is anything in a folder besides a lock and what a killed process left."""
    return any(
        path.name != LOCK_FILE and not fnmatch.fnmatchcase(path.name, TEMPORARY_FILES)
        for path in folder.iterdir()
    )


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _length(path: Path, lines: int) -> int:
    """Length in bytes of the first `lines` lines of a file."""
    with path.open("rb") as file:
        return sum(len(line) for line in itertools.islice(file, lines))
