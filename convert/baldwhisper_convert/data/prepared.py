"""Prepared data: windows of speech on disk, ready for batches, made once for many epochs.

A folder with `features.f16` (encoder states of a frozen encoder, or log-mel, as float16, one
window after another) and `windows.jsonl` (one line a window); prepared_writer.py writes it.
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

SETTINGS_FILE, WINDOWS_FILE, FEATURES_FILE = "prepared.json", "windows.jsonl", "features.f16"

SPEECH, SILENCE = "speech", "silence"
STATES, MEL = "states", "mel"

NUMBER_BYTES = 2
"""Of a float16."""


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
        found = (self.folder / FEATURES_FILE).stat().st_size / NUMBER_BYTES
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
    def audio_context(self) -> tuple[str, int]:
        """What a model trained on it is for: `full` or `dynamic`, and the margin in positions."""
        how = self.settings["report"]["settings"]
        context = str(how.get("audio_context", "full"))  # data of before there was a choice
        return context, round(how["windows"]["margin"] * POSITIONS_PER_SECOND)

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

    @property
    def audio_context(self) -> tuple[str, int]:
        """As `Prepared.audio_context`."""
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
        first = parts[0][0]
        kinds = {(p.is_mel, p.width, p.language, p.audio_context[0]) for p, _ in parts}
        if len(kinds) > 1:
            raise ValueError(
                "the prepared data have different features, languages or audio contexts; prepare "
                "them alike"
            )
        self.is_mel, self.language = first.is_mel, first.language
        self.audio_context = first.audio_context
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
