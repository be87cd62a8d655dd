"""Plans windows of at most 30 s: consecutive utterances of one speaker, pauses, silence.

A model trained on single clips alone fails on the 30 s windows of long recordings, which hold
several sentences and pauses and follow previous text. Plans depend on durations and a seed only;
the audio is joined later, as planned.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from baldwhisper_convert.data.augment import excerpt, pink_noise
from baldwhisper_convert.data.ranges import check_range
from baldwhisper_convert.data.utterances import Utterance
from baldwhisper_mlx.audio.buffer import Samples
from baldwhisper_mlx.config import FRAMES_PER_POSITION, HOP_LENGTH, SAMPLE_RATE, bucketed_positions

WINDOW_SECONDS = 30.0
POSITIONS_PER_SECOND = SAMPLE_RATE // (HOP_LENGTH * FRAMES_PER_POSITION)
"""Encoder positions per second of audio: 50."""
WINDOW_POSITIONS = round(WINDOW_SECONDS * POSITIONS_PER_SECOND)
"""Encoder positions of 30 s: 1500."""


@dataclass(frozen=True, kw_only=True)
class WindowSettings:
    """How utterances are arranged in windows.

    Raises:
        ValueError: a number out of range.
    """

    single: float = 0.2
    """Share of the windows that hold a single utterance."""
    silence: float = 0.02
    """Number of windows of silence or noise, as a share of the windows with speech."""
    pause: float = 0.6
    """Longest pause inserted between two utterances, and before the first, in seconds."""
    margin: float = 0.5
    """Seconds of encoder output kept after the end of a window's audio."""
    full: float = 0.3
    """Share of the windows that keep all 30 s of encoder output or log-mel, as at inference."""

    def __post_init__(self) -> None:
        check_range(self, ("single", "silence", "full"), 0, 1)
        check_range(self, ("pause", "margin"), 0, WINDOW_SECONDS)


@dataclass(frozen=True)
class Placed:
    """An utterance and its times in a window."""

    utterance: int
    """Index of the utterance."""
    start: float
    """Seconds from the start of the window."""
    end: float


@dataclass(frozen=True)
class Window:
    """The utterances of a window; a window of silence has none."""

    items: tuple[Placed, ...]
    full: bool
    """Whether all 30 s of encoder output are kept."""
    follows: int | None = None
    """Number of the window that this one continues: the previous one, of the same speaker."""

    @property
    def duration(self) -> float:
        """Seconds up to the end of the last utterance."""
        return self.items[-1].end if self.items else WINDOW_SECONDS


def plan_windows(
    durations: Sequence[float], groups: Sequence[str], settings: WindowSettings, seed: int
) -> list[Window]:
    """Plans windows: every utterance once, in order, groups apart, then windows of silence.

    Args:
        durations: seconds of each utterance, at most 30.
        groups: of each utterance; only neighbours of the same group share a window, and an
            utterance of the group "" is alone in its own.
        settings: shares and pauses.
        seed: of the draws.

    Raises:
        ValueError: an utterance that is longer than 30 s or has no length.

    Example:
        >>> plan = plan_windows([9, 9, 9, 9], ["a", "a", "a", "b"],
        ...                     WindowSettings(single=0, silence=0, pause=0), seed=0)
        >>> [len(window.items) for window in plan]
        [3, 1]
    """
    rng = random.Random(seed)
    windows: list[Window] = []
    items: list[Placed] = []
    limit = 1

    def close() -> None:
        if items:
            before = windows[-1] if windows else None
            group = groups[items[0].utterance]
            same = group and before and groups[before.items[-1].utterance] == group
            follows = len(windows) - 1 if same else None
            windows.append(Window(tuple(items), rng.random() < settings.full, follows))
            items.clear()

    for i, (duration, group) in enumerate(zip(durations, groups, strict=True)):
        if not 0 < duration <= WINDOW_SECONDS:
            raise ValueError(
                f"utterance {i} lasts {duration:.2f} s; it must be above 0 and at most 30"
            )
        pause = rng.uniform(0, settings.pause)
        end = items[-1].end + pause + duration if items else duration
        if items and (
            len(items) >= limit
            or end > WINDOW_SECONDS
            or not group
            or groups[items[-1].utterance] != group
        ):
            close()
        if not items:
            limit = 1 if rng.random() < settings.single else len(durations)
            pause = min(pause, WINDOW_SECONDS - duration)
        start = (items[-1].end if items else 0.0) + pause
        items.append(Placed(i, start, start + duration))
    close()
    n_silent = round(settings.silence * len(windows))
    return windows + [Window((), rng.random() < settings.full) for _ in range(n_silent)]


@dataclass(frozen=True)
class Planned:
    """A window of a plan that makes several passes over the speech."""

    number: int
    """Of the window in the whole plan."""
    number_in_pass: int
    number_of_pass: int
    """0 for the first pass, which is not augmented."""
    window: Window


def plan_passes(
    durations: Sequence[float],
    groups: Sequence[str],
    settings: WindowSettings,
    seeds: Sequence[int],
) -> list[Planned]:
    """Plans the windows of several passes, in the order they are prepared.

    Args:
        durations, groups, settings: as of `plan_windows`.
        seeds: of each pass.
    """
    plan = list[Planned]()
    for number_of_pass, seed in enumerate(seeds):
        first = len(plan)
        windows = plan_windows(durations, groups, settings, seed)
        plan += [Planned(first + i, i, number_of_pass, each) for i, each in enumerate(windows)]
    return plan


def kept_positions(n_samples: int, *, full: bool, dynamic: bool, margin: float) -> int:
    """Encoder positions that are kept of a window.

    Args:
        n_samples: of its audio.
        full: whether all of them are kept, see `Window`.
        dynamic: whether the encoder receives the window's own frames only, in which case `full`
            has no effect.
        margin: seconds kept after the end of the audio.
    """
    if dynamic:
        after = round(margin * POSITIONS_PER_SECOND)
        return bucketed_positions(n_samples // HOP_LENGTH, after, WINDOW_POSITIONS)
    wanted = math.ceil((n_samples / SAMPLE_RATE + margin) * POSITIONS_PER_SECOND)
    return WINDOW_POSITIONS if full else min(WINDOW_POSITIONS, wanted)


def join(window: Window, parts: Sequence[Samples]) -> Samples:
    """Joins the audio of a window: utterances at their planned times, digital silence between.

    Args:
        window: the planned window.
        parts: samples of its utterances at 16 kHz.
    """
    joined = np.zeros(round(window.duration * SAMPLE_RATE), dtype=np.float32)
    for item, part in zip(window.items, parts, strict=True):
        start = round(item.start * SAMPLE_RATE)
        joined[start : start + len(part)] = part[: len(joined) - start]
    return joined


def silence(seed: int, recordings: Sequence[Samples] = (), *, any_length: bool = False) -> Samples:
    """30 s without speech: digital silence, white or pink noise, a mains hum, recorded noise.

    The level of the noises is drawn from -80 to -25 dBFS.

    Args:
        seed: of the draws.
        recordings: of noise; with some, every second window is an excerpt of one of them.
        any_length: 1 to 30 s instead, for a dynamic audio context, which follows the length.
    """
    rng = np.random.default_rng(seed)
    seconds = rng.uniform(1, WINDOW_SECONDS) if any_length else WINDOW_SECONDS
    n = round(seconds * SAMPLE_RATE)
    recorded = len(recordings) > 0 and rng.random() < 0.5
    kind = "recording" if recorded else rng.choice(["zero", "white", "pink", "hum"])
    if kind == "zero":
        return np.zeros(n, dtype=np.float32)
    sound: np.ndarray[tuple[int], np.dtype[np.float64]]
    if kind == "recording":
        sound = excerpt(recordings[int(rng.integers(len(recordings)))], n, rng).astype(np.float64)
    elif kind == "hum":
        time = np.arange(n) / SAMPLE_RATE
        base = rng.uniform(49, 61)
        sound = np.sum([np.sin(2 * np.pi * base * k * time) / k for k in (1, 2, 3, 5)], axis=0)
    else:
        sound = pink_noise(n, rng) if kind == "pink" else rng.standard_normal(n)
    level = 10 ** (rng.uniform(-80, -25) / 20)
    power = float(np.sqrt(np.mean(np.square(sound))))
    # A recording may have a pause of digital silence.
    return np.asarray(sound * (level / power if power else 0.0), dtype=np.float32)


@dataclass(frozen=True)
class Sound:
    """A window's audio and the utterances in it."""

    planned: Planned
    items: Sequence[Utterance]
    samples: Samples
    speed: float = 1.0
    """How many times as fast as planned it is played."""

    @property
    def text(self) -> str:
        """The joined transcripts of its utterances."""
        return " ".join(utterance.text for utterance in self.items if utterance.text)
