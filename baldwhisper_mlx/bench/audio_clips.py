"""Clips of exact lengths, cut from the recordings a user gives.

Each round gets audio that starts with another recording, so that no single sentence decides the
result; within a round all contenders get the same audio.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile

from baldwhisper_mlx.audio.buffer import Samples
from baldwhisper_mlx.audio.load import load_audio
from baldwhisper_mlx.config import SAMPLE_RATE

SUFFIXES = (".flac", ".m4a", ".mp3", ".mp4", ".ogg", ".opus", ".wav", ".webm")
"""What counts as a recording in a folder."""


def read_recordings(names: Sequence[str], count: int, seconds: float) -> list[Samples]:
    """Decodes as many recordings as are needed.

    Args:
        names: files; a folder stands for the recordings in it, sorted by name.
        count: how many are needed at least.
        seconds: how long they have to be together, at least.

    Returns:
        Mono samples at 16 kHz of each; all of them where that is not enough.

    Raises:
        FileNotFoundError, ValueError: see `load_audio`; also for a folder without recordings.
    """
    files = []
    for name in names:
        folder = Path(name)
        if not folder.is_dir():
            files.append(name)
            continue
        inside = sorted(str(p) for p in folder.iterdir() if p.suffix.lower() in SUFFIXES)
        if not inside:
            raise ValueError(f"{name}: no recordings in this folder ({', '.join(SUFFIXES)})")
        files += inside
    recordings: list[Samples] = []
    for file in files:
        if len(recordings) >= count and sum(map(len, recordings)) >= seconds * SAMPLE_RATE:
            break
        recordings.append(load_audio(file))
    return recordings


def take(recordings: Sequence[Samples], start: int, seconds: float) -> Samples:
    """Recordings from `start` on, in turn and repeated, cut to an exact length.

    Args:
        recordings: mono samples at 16 kHz, none empty.
        start: index of the first.
        seconds: length of the result.

    Returns:
        Samples (round(16000 * seconds),), float32.

    Raises:
        ValueError: no recordings.
    """
    if not recordings:
        raise ValueError("no recordings to take clips from")
    wanted = round(seconds * SAMPLE_RATE)
    parts: list[Samples] = []
    length = 0
    while length < wanted:
        parts.append(recordings[(start + len(parts)) % len(recordings)][: wanted - length])
        length += len(parts[-1])
    return np.concatenate(parts) if parts else np.zeros(0, np.float32)


def write_clips(
    files: Sequence[str], lengths: Sequence[float], rounds: int, folder: Path
) -> dict[float, list[str]]:
    """Writes 16-bit wav files of every length, one for each round that can differ.

    Args:
        files: recordings, or folders of them.
        lengths: in seconds.
        rounds: of the benchmark; there are as many clips of a length, or one per recording.
        folder: where they go.

    Returns:
        Paths by length.

    Raises:
        FileNotFoundError, ValueError: see `read_recordings`.
    """
    recordings = read_recordings(files, rounds, max(lengths, default=0.0))
    clips: dict[float, list[str]] = {}
    for seconds in lengths:
        clips[seconds] = []
        for start in range(min(rounds, len(recordings))):
            path = folder / f"{seconds:g}s-{start}.wav"
            soundfile.write(path, take(recordings, start, seconds), SAMPLE_RATE, subtype="PCM_16")
            clips[seconds].append(str(path))
    return clips
