"""Clips of every length for short_context.py: as many of each bin, joined where single ones end."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from baldwhisper_mlx.config import SAMPLE_RATE
from baldwhisper_mlx.evaluation.dataset import Clip, Source, Speech
from benchmarks.accuracy.short_context_clips import Item, with_noise
from benchmarks.accuracy.short_context_summary import length_bin
from benchmarks.result_files import data_name, spread

PAUSE = 0.3
"""Seconds of silence between two clips that are joined."""
LONGEST = 30.0
"""Seconds of a window; a longer clip is no short context."""
Parts = tuple[Clip, ...]
"""Clips whose samples, with pauses between them, are one item."""


def clips_by_length(
    folders: Sequence[Path], edges: Sequence[int], number: int, noise_at: str | None
) -> Iterator[Item]:
    """Clips of all folders together, at most `number` of each bin of length, shortest bin first.

    Those of a bin are taken at equal steps over all that there are. Where single clips are too few,
    two neighbours of one speaker are joined.

    Args:
        folders: of speech.
        edges: upper ends of the bins in seconds, ascending; the last bin ends at 30 s.
        number: clips of each bin.
        noise_at: as `with_noise` takes it; None for the clips as they are.
    """
    singles, pairs = _bins(folders, edges)
    for place in sorted({*singles, *pairs}, key=lambda one: one[0]):
        chosen = spread(singles.get(place, []), number)
        chosen += spread(pairs.get(place, []), number - len(chosen))
        for seed, (name, parts) in enumerate(chosen):
            yield _item(name, parts, noise_at, seed)


Bins = dict[tuple[int, int | None], list[tuple[str, Parts]]]
"""Bin of length to folder, as results call it, and clips."""


def _bins(folders: Sequence[Path], edges: Sequence[int]) -> tuple[Bins, Bins]:
    """Single clips and pairs of neighbours, by the length of their samples."""
    singles: Bins = {}
    pairs: Bins = {}
    for folder in folders:
        name, before, seconds_before = data_name(folder), None, 0.0
        for clip in Speech(Source(name=str(folder))):
            seconds = len(clip.samples()) / SAMPLE_RATE
            joined = seconds_before + PAUSE + seconds
            if seconds < LONGEST:
                singles.setdefault(length_bin(seconds, edges), []).append((name, (clip,)))
            if before is not None and before.speaker == clip.speaker and joined < LONGEST:
                pairs.setdefault(length_bin(joined, edges), []).append((name, (before, clip)))
            before, seconds_before = clip, seconds
    return singles, pairs


def _item(name: str, parts: Parts, noise_at: str | None, seed: int) -> Item:
    """One or two clips as an item."""
    pause = np.zeros(round(PAUSE * SAMPLE_RATE), np.float32)
    pieces = [piece for clip in parts for piece in (pause, clip.samples())][1:]
    samples = np.concatenate(pieces)
    if noise_at is not None:
        samples = with_noise(samples, noise_at, seed)
    called = " + ".join(clip.name for clip in parts)
    return Item(f"{name}/{called}", name, " ".join(clip.text for clip in parts), samples)
