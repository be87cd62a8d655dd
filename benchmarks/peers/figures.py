"""The clips that every program transcribes, and the figures of each program."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from baldwhisper_mlx.audio.load import load_audio
from baldwhisper_mlx.bench.statistics import quartiles
from baldwhisper_mlx.config import CONFIG_FILE, SAMPLE_RATE, VOCABULARY_FILE, ModelConfig
from baldwhisper_mlx.text.tokenizer import Tokenizer, read_ranks
from benchmarks.accuracy.word_errors import rate_of
from benchmarks.result_files import read_clips

LENGTHS = (3, 10, 30)
"""Seconds of the pieces that are timed by themselves: an encoder of 30 s takes the same for all."""
PIECES = 5
"""Of each length."""


class Clips:
    """The clips of a folder, decoded once into files that every program reads alike.

    `pieces` are files of exactly `LENGTHS` seconds: each from the beginning of a clip, and from
    the clips behind it as far as they are needed.

    Args:
        data: folder with a metadata.jsonl.
        limit: only the first so many; None for all.
        work: folder for the samples.
    """

    def __init__(self, data: Path, limit: int | None, work: Path) -> None:
        self.rows = read_clips(data, limit)
        self.paths, self.seconds = [], []
        self.pieces: dict[int, list[str]] = {length: [] for length in LENGTHS}
        for number, row in enumerate(self.rows):
            samples = load_audio(data / row["file_name"])
            path = work / f"{number}.npy"
            np.save(path, samples)
            self.paths.append(str(path))
            self.seconds.append(len(samples) / SAMPLE_RATE)
        for number in range(min(PIECES, len(self.paths))):
            for length in LENGTHS:
                path = work / f"{number}-{length}.npy"
                np.save(path, self._joined(number, length * SAMPLE_RATE))
                self.pieces[length].append(str(path))

    def _joined(self, first: int, n: int) -> npt.NDArray[np.float32]:
        """The first `n` samples from the clip `first` on, starting over behind the last one."""
        parts: list[npt.NDArray[np.float32]] = []
        for path in self.paths[first:] + self.paths[:first]:
            parts.append(np.load(path))
            if sum(map(len, parts)) >= n:
                break
        return np.resize(np.concatenate(parts), n)


def read_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer of an exported model, without its weights."""
    config = ModelConfig.from_file(folder / CONFIG_FILE)
    return Tokenizer(read_ranks(folder / VOCABULARY_FILE), config)


def summary(found: dict[str, Any], clips: Clips, tokenizer: Tokenizer) -> dict[str, Any]:
    """Figures of one program.

    Tokens are those of its text in the checkpoint's vocabulary, for every program: timestamps and
    what a program tried and dropped do not count.
    """
    seconds, audio = sum(found["times"]), sum(clips.seconds)
    names = [row["file_name"] for row in clips.rows]
    tokens = sum(len(tokenizer.encode(text)) for text in found["texts"])
    return {
        "settings": found["settings"],
        "startup_seconds": round(found["startup_seconds"], 3),
        "first_seconds": round(found["first_seconds"], 4),
        "seconds": round(seconds, 3),
        "seconds_per_clip": {k: round(v, 4) for k, v in quartiles(found["times"]).items()},
        "seconds_by_length": {
            length: round(float(np.median(times)), 4) for length, times in found["pieces"].items()
        },
        "rtf": round(seconds / audio, 5),
        "tokens": tokens,
        "tokens_per_second": round(tokens / seconds, 2),
        "peak_process_bytes": found["peak_process_bytes"],
    } | rate_of(clips.rows, dict(zip(names, found["texts"], strict=True)))
