"""Prepared data: windows of speech on disk, computed once for many epochs.

A folder with `features.f16` (encoder states of a frozen encoder, or log-mel, as consecutive float16
arrays) and `windows.jsonl` (one line per window); prepared_writer.py writes it.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from baldwhisper_convert.data.windows import POSITIONS_PER_SECOND
from baldwhisper_mlx.files import read_json
from baldwhisper_mlx.terminal import quoted

SETTINGS_FILE, WINDOWS_FILE, FEATURES_FILE = "prepared.json", "windows.jsonl", "features.f16"

SPEECH, SILENCE = "speech", "silence"
STATES, MEL = "states", "mel"
NO_LABELS = "none"
"""`labels` of data that was prepared without text."""

FLOAT16_BYTES = 2


@dataclass(frozen=True, kw_only=True)
class PreparedWindow:
    """At most 30 s of audio and its label."""

    kind: str
    """`SPEECH` or `SILENCE`."""
    positions: int
    """Encoder positions kept (20 ms each)."""
    tokens: tuple[int, ...]
    """Text with timestamps; without special tokens."""
    prompt: tuple[int, ...]
    """Text tokens of the previous window, if this one continues it."""
    text: str
    """The transcript as it is in the data."""
    duration: float
    """Seconds of audio."""
    source: str
    """Origin of the audio: the first file of the window."""
    number: int
    """Number of the window in its plan."""
    offset: int = 0
    """Start of its features in the file, counted in float16 values."""


class Prepared:
    """Read access to prepared data.

    Raises:
        FileNotFoundError: the folder holds no prepared data.
        ValueError: unfinished or damaged.

    Example:
        >>> data = Prepared("prepared/train")  # doctest: +SKIP
        >>> data.features(0).shape  # doctest: +SKIP
        torch.Size([1500, 512])
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.settings = read_settings(self.folder)
        if not self.settings["complete"]:
            raise ValueError(
                f"{folder}: unfinished; rerun the same `prepare` to resume it, without --shard if "
                "all shards are done"
            )
        self.windows = list(read_windows(self.folder))
        self.is_mel = self.settings["features"] == MEL
        self.width: int = self.settings["width"]
        expected = self._check_offsets()
        stored = (self.folder / FEATURES_FILE).stat().st_size / FLOAT16_BYTES
        if stored != expected:
            raise ValueError(
                f"{folder}: {FEATURES_FILE} has {stored:g} values, not {expected}; delete the "
                "folder and prepare again"
            )

    def _check_offsets(self) -> int:
        """Checks that every window is there once, its features after those of the one before.

        Two processes that wrote to the same folder, which earlier versions allowed, mixed them up.

        Returns:
            The number of values of all features.

        Raises:
            ValueError: they are not; the message says what to delete.
        """
        end, last = 0, -1
        for line, window in enumerate(self.windows, start=1):
            if window.offset != end or window.number <= last:
                raise ValueError(
                    f"{self.folder / WINDOWS_FILE}: line {line} has window {window.number} at "
                    f"{window.offset}, after window {last}, which ends at {end}; windows are "
                    "missing, repeated or mixed up. Delete the folder and prepare again"
                )
            end, last = end + self.size(window), window.number
        return end

    def __len__(self) -> int:
        return len(self.windows)

    def size(self, window: PreparedWindow) -> int:
        """Number of values of a window's features."""
        return window.positions * (2 if self.is_mel else 1) * self.width

    def values(self, index: int) -> np.ndarray[Any, np.dtype[np.float16]]:
        """The features of a window as they are stored, in one dimension."""
        window = self.windows[index]
        return self._values[window.offset : window.offset + self.size(window)]

    def features(self, index: int) -> torch.Tensor:
        """Encoder states (positions, d), or log-mel (n_mels, 2 * positions), float32."""
        flat = self.values(index)
        # torch converts float16 eight times as fast as NumPy.
        tensor = torch.from_numpy(np.array(flat)).float()
        return tensor.view(self.width, -1) if self.is_mel else tensor.view(-1, self.width)

    @property
    def labelled(self) -> bool:
        """Whether its speech has text."""
        settings = self.settings["report"]["settings"]
        return bool(settings.get("labels") != NO_LABELS)

    @property
    def language(self) -> str:
        """Code of the spoken language."""
        return str(self.settings["report"]["settings"]["language"])

    @property
    def languages(self) -> list[str]:
        """Code of the language of each window, the same for all."""
        return [self.language] * len(self.windows)

    @property
    def audio_context(self) -> tuple[str, int]:
        """Audio context of a model trained on it, `full` or `dynamic`; its margin in positions."""
        settings = self.settings["report"]["settings"]
        context = str(settings.get("audio_context", "full"))  # missing in data of old versions
        return context, round(settings["windows"]["margin"] * POSITIONS_PER_SECOND)

    @property
    def fingerprint(self) -> str:
        """Identifies the data: the key of its settings, its audio, and the number of windows."""
        audio = str(self.settings.get("audio", ""))[:8]  # missing in data of old versions
        return f"{self.settings['key']}/{len(self.windows)}" + (audio and f"/{audio}")

    @cached_property
    def _values(self) -> np.memmap[Any, np.dtype[np.float16]]:
        return np.memmap(self.folder / FEATURES_FILE, dtype=np.float16, mode="r")


class Windows(Protocol):
    """Windows with their features: `Prepared` data, or a `Choice` of several."""

    @property
    def windows(self) -> Sequence[PreparedWindow]:
        """The windows."""
        ...

    @property
    def is_mel(self) -> bool:
        """Whether the features are log-mel."""
        ...

    @property
    def labelled(self) -> bool:
        """Whether the speech has text."""
        ...

    @property
    def language(self) -> str:
        """Code of the spoken language; of several, that of the first data."""
        ...

    @property
    def languages(self) -> Sequence[str]:
        """Code of the language of each window."""
        ...

    @property
    def audio_context(self) -> tuple[str, int]:
        """As `Prepared.audio_context`."""
        ...

    def features(self, index: int) -> torch.Tensor:
        """As `Prepared.features`."""
        ...


class Choice:
    """Windows chosen from several folders of prepared data, as one set.

    Args:
        parts: prepared data and the share of its windows to use, above 0. With a share above 1,
            windows are used more than once per epoch. The parts may be of different languages.
        seed: of the random choice.

    Raises:
        ValueError: no parts, an empty one, or parts with different features.
    """

    def __init__(self, parts: Sequence[tuple[Prepared, float]], seed: int = 0) -> None:
        if not parts:
            raise ValueError("no prepared data given")
        first = parts[0][0]
        kinds = {(p.is_mel, p.labelled, p.width, p.audio_context[0]) for p, _ in parts}
        if len(kinds) > 1:
            raise ValueError(
                "the folders of prepared data differ in features, labels (some have none) or "
                "audio contexts; prepare them with the same settings"
            )
        self.is_mel, self.language = first.is_mel, first.language
        self.labelled = first.labelled
        self.audio_context = first.audio_context
        self.parts = [part for part, _ in parts]
        self._places: list[tuple[Prepared, int]] = []
        for part, share in parts:
            if share <= 0:
                raise ValueError(f"{part.folder}: the share must be above 0, not {share}")
            if not part.windows:
                report = part.settings.get("report") or {}
                raise ValueError(
                    f"{part.folder}: no windows; {report.get('dropped', 0)} were dropped, because "
                    f"no label was usable; bad utterances: {report.get('bad', 'none')}"
                )
            order = random.Random(f"{seed}/{part.fingerprint}").sample(range(len(part)), len(part))
            whole, rest = divmod(round(share * len(part)), len(part))
            chosen = sorted(order * whole + order[:rest])
            self._places += [(part, i) for i in chosen]
        self.windows = [part.windows[i] for part, i in self._places]
        self.languages = [part.language for part, _ in self._places]

    def features(self, index: int) -> torch.Tensor:
        """As `Prepared.features`."""
        part, i = self._places[index]
        return part.features(i)


def read_settings(folder: Path) -> dict[str, Any]:
    """Reads `prepared.json`.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is damaged; the message says what to delete.
    """
    path = folder / SETTINGS_FILE
    advice = "delete the folder and prepare again"
    try:
        raw = read_json(path)
    except ValueError as error:
        raise ValueError(f"{error}; {advice}") from None
    kinds = {"key": str, "features": str, "width": int, "complete": bool}
    sound = isinstance(raw, dict) and all(
        isinstance(raw.get(key), kind) for key, kind in kinds.items()
    )
    report = raw.get("report") if sound else None
    of_report = report.get("settings") if isinstance(report, dict) else None
    if not sound or not all(isinstance(s, dict | None) for s in (of_report, raw.get("settings"))):
        raise ValueError(f"{path}: damaged; {advice}")
    return dict(raw)


def read_windows(folder: Path) -> Iterator[PreparedWindow]:
    """Reads the windows listed in a folder; an incomplete last line is left out.

    Raises:
        ValueError: any other line is damaged.
    """
    path = folder / WINDOWS_FILE
    if not path.is_file():
        return
    # As bytes, because an interrupted run may leave half a character.
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.endswith(b"\n"):
                return
            try:
                raw = json.loads(line)
                raw["tokens"], raw["prompt"] = tuple(raw["tokens"]), tuple(raw["prompt"])
                window = PreparedWindow(**raw)
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(
                    f"{path}: line {number} is damaged ({quoted(error, 200)}); delete the "
                    "folder and prepare again"
                ) from None
            yield window
