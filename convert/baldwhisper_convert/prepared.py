"""Prepared data: windows of speech on disk, ready for batches, made once for many epochs.

A folder with `features.f16` (encoder states of a frozen encoder, or log-mel, as float16, one
window after another) and `windows.jsonl` (one line a window). A window's line is written
after its features, so what a killed run left is whole up to its last line, and the next run
goes on from there.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, Protocol, TextIO

import numpy as np
import torch

from baldwhisper_convert.stages import write_atomically
from baldwhisper_convert.weight_files import read_json

SETTINGS_FILE, WINDOWS_FILE, FEATURES_FILE = "prepared.json", "windows.jsonl", "features.f16"

SPEECH, SILENCE = "speech", "silence"
STATES, MEL = "states", "mel"

_BYTES = 2  # float16


@dataclass(frozen=True, kw_only=True)
class PreparedWindow:
    """At most 30 s of audio and what was said in it."""

    kind: str
    """`SPEECH` or `SILENCE`."""
    positions: int
    """Encoder positions kept (20 ms each)."""
    tokens: tuple[int, ...]
    """Text with timestamps; without special tokens."""
    prompt: tuple[int, ...]
    """Text tokens of the window before, if the same speaker goes on."""
    text: str
    """The transcript, as the data has it."""
    duration: float
    """Seconds of audio."""
    source: str
    """Where the audio is from: first file of the window."""
    number: int
    """Of the window in its plan."""
    offset: int = 0
    """Where the features start, in float16 numbers."""


class Prepared:
    """Read access to prepared data.

    Raises:
        FileNotFoundError: no prepared data there.
        ValueError: unfinished or damaged.

    Example:
        >>> data = Prepared("prepared/train")  # doctest: +SKIP
        >>> data.features(0).shape  # doctest: +SKIP
        torch.Size([1500, 512])
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.settings: dict[str, Any] = read_json(self.folder / SETTINGS_FILE)
        if not self.settings.get("complete"):
            raise ValueError(f"{folder}: unfinished; run the same `prepare` again to go on")
        self.windows = list(read_windows(self.folder))
        self.is_mel = self.settings["features"] == MEL
        self.width: int = self.settings["width"]
        expected = sum(self.size(window) for window in self.windows)
        found = (self.folder / FEATURES_FILE).stat().st_size / _BYTES
        if found != expected:
            raise ValueError(f"{folder}: {FEATURES_FILE} has {found:g} numbers, not {expected}")

    def __len__(self) -> int:
        return len(self.windows)

    def size(self, window: PreparedWindow) -> int:
        """Numbers a window's features consist of."""
        return window.positions * (2 if self.is_mel else 1) * self.width

    def features(self, index: int) -> torch.Tensor:
        """Encoder states (positions, d), or log-mel (n_mels, 2 * positions), float32."""
        window = self.windows[index]
        flat = self._numbers[window.offset : window.offset + self.size(window)]
        tensor = torch.from_numpy(flat.astype(np.float32))
        return tensor.view(self.width, -1) if self.is_mel else tensor.view(-1, self.width)

    @property
    def language(self) -> str:
        """Code of the language that is spoken."""
        return str(self.settings["report"]["settings"]["language"])

    @property
    def fingerprint(self) -> str:
        """What the data is made of: the settings' key and the number of windows."""
        return f"{self.settings['key']}/{len(self.windows)}"

    @cached_property
    def _numbers(self) -> np.memmap[Any, np.dtype[np.float16]]:
        return np.memmap(self.folder / FEATURES_FILE, dtype=np.float16, mode="r")


class Windows(Protocol):
    """Windows with their features: prepared data, or a choice of several."""

    @property
    def windows(self) -> Sequence[PreparedWindow]:
        """The windows."""
        ...

    @property
    def is_mel(self) -> bool:
        """Whether the features are log-mel."""
        ...

    @property
    def language(self) -> str:
        """Code of the language that is spoken."""
        ...

    def features(self, index: int) -> torch.Tensor:
        """As `Prepared.features`."""
        ...


class Choice:
    """Windows chosen from several prepared data, as one.

    Args:
        parts: prepared data and the share of its windows to use, above 0. A share above 1 uses
            windows more than once in a pass.
        seed: of the choice.

    Raises:
        ValueError: no parts, an empty one, or parts with different features.
    """

    def __init__(self, parts: Sequence[tuple[Prepared, float]], seed: int = 0) -> None:
        if not parts:
            raise ValueError("no prepared data")
        kinds = {(part.is_mel, part.width, part.language) for part, _ in parts}
        if len(kinds) > 1:
            raise ValueError(
                "the prepared data have different features or languages; prepare them alike"
            )
        self.is_mel = parts[0][0].is_mel
        self.language = parts[0][0].language
        self._places: list[tuple[Prepared, int]] = []
        for part, share in parts:
            if share <= 0:
                raise ValueError(f"{part.folder}: share {share} must be above 0")
            if not part.windows:
                raise ValueError(f"{part.folder}: no windows; {part.settings.get('report')}")
            order = random.Random(f"{seed}/{part.fingerprint}").sample(range(len(part)), len(part))
            whole, rest = divmod(round(share * len(part)), len(part))
            chosen = sorted(order * whole + order[:rest])
            self._places += [(part, i) for i in chosen]
        self.windows = [part.windows[i] for part, i in self._places]

    def features(self, index: int) -> torch.Tensor:
        """As `Prepared.features`."""
        part, i = self._places[index]
        return part.features(i)


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
        stored = _size(folder / FEATURES_FILE) // _BYTES
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
        self._features.truncate(self._numbers * _BYTES)
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


def read_windows(folder: Path) -> Iterator[PreparedWindow]:
    """The windows listed in a folder; a last line without its end is left out.

    Raises:
        ValueError: a damaged line.
    """
    path = folder / WINDOWS_FILE
    if not path.is_file():
        return
    # As bytes, because a killed run may leave half a character.
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.endswith(b"\n"):
                return
            try:
                raw = json.loads(line)
                raw["tokens"], raw["prompt"] = tuple(raw["tokens"]), tuple(raw["prompt"])
                window = PreparedWindow(**raw)
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(f"{path}: line {number} is damaged ({error!r})") from None
            yield window


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _length(path: Path, lines: int) -> int:
    """Bytes of the first lines of a file."""
    with path.open("rb") as file:
        return sum(len(line) for line in itertools.islice(file, lines))
