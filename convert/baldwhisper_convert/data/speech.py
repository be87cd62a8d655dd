"""What a stage is given to listen to: prepared windows, and text beside them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

if sys.version_info >= (3, 11):
    pass
else:
    pass


from baldwhisper_convert.data.batches import Batch, Mix, collate
from baldwhisper_convert.data.prepared import SPEECH, Choice, Prepared, Windows
from baldwhisper_convert.data.texts import text_fingerprint
from baldwhisper_convert.model.prompts import Prompts

SAMPLE_BATCH = 8
"""Windows of a batch of `sample`."""


@dataclass(frozen=True, kw_only=True)
class Speech:
    """Prepared data for a stage."""

    windows: Windows
    fingerprints: dict[str, str]
    """Name to `Prepared.fingerprint`, or `text_fingerprint`, for the manifest."""
    texts: tuple[Path, ...] = ()
    """Text files whose tokens `factorize` counts with those of the labels."""


def open_speech(data: Sequence[str], texts: Sequence[Path] = ()) -> Speech:
    """Prepared folders, each with an optional `:share`, as one set of data, and text beside it.

    Raises:
        FileNotFoundError: a folder or a text is missing.
        ValueError: one that is unfinished, or folders that do not go together.
    """
    opened = [(Path(name), Prepared(name), share) for name, share in parts(data)]
    return Speech(
        windows=Choice([(prepared, share) for _, prepared, share in opened]),
        fingerprints={path.name: prepared.fingerprint for path, prepared, _ in opened}
        | {path.name: text_fingerprint(path) for path in texts},
        texts=tuple(texts),
    )


def sample(
    windows: Windows, prompts: Prompts, count: int, *, timestamps: float = 0.0
) -> list[Batch]:
    """Batches of about `count` windows of speech, spread evenly over the data.

    Args:
        windows: the data.
        prompts: special tokens.
        count: of windows.
        timestamps: share of the windows whose tokens have timestamps.
    """
    spoken = [i for i, window in enumerate(windows.windows) if window.kind == SPEECH]
    count = min(count, len(spoken))
    chosen = [spoken[i * len(spoken) // count] for i in range(count)]
    mix = Mix(timestamps=timestamps, prompts=0.0)
    return [
        collate(windows, chosen[i : i + SAMPLE_BATCH], prompts, mix)
        for i in range(0, count, SAMPLE_BATCH)
    ]


def parts(data: Sequence[str]) -> list[tuple[str, float]]:
    """Names with their shares: `["a", "b:0.5"]` is `[("a", 1.0), ("b", 0.5)]`.

    Raises:
        ValueError: a share that is not a number above 0.
    """
    found = []
    for item in data:
        name, colon, share = item.rpartition(":")
        try:
            found.append((name, float(share)) if colon else (item, 1.0))
        except ValueError:
            found.append((item, 1.0))  # a path with a colon
        if not found[-1][1] > 0:
            raise ValueError(f"{item}: the share must be above 0")
    return found
