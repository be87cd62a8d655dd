"""Stretches of speech in several languages, and how they are joined into one recording.

For make_language_mix.py, whose recordings are minutes long and change the language between turns,
and mix_languages.py, whose clips change it inside a sentence.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from baldwhisper_mlx.config import SAMPLE_RATE

Samples = npt.NDArray[np.float32]
LEVEL = 0.05
"""Root mean square of every turn, in full scale."""
NOISE = 2e-4
"""Root mean square of the noise everywhere, so that pauses are no digital silence."""
FRAME = SAMPLE_RATE // 100
QUIET = -30.0
"""Level of a silent frame relative to the loud ones of its clip, in dB."""
PAUSE = 0.12
"""Seconds; shorter silences are parts of sounds."""
KEPT = 0.03
"""Seconds of silence that stay at the ends of a clip."""
FADE = 0.005
"""Seconds over which a part begins and ends, so that cuts do not click."""
FAR = 0.12
"""Largest distance of a pause from its punctuation mark, as a share of the clip."""


@dataclass(frozen=True)
class Utterance:
    """Speech with its text."""

    samples: Samples
    text: str


@dataclass(frozen=True)
class Turn:
    """A stretch of a recording in one language, in seconds."""

    start: float
    end: float
    language: str
    text: str


def at_level(samples: Samples) -> Samples:
    """Speech at the common level."""
    power = float(np.sqrt(np.mean(np.square(samples))))
    return (samples * (LEVEL / max(power, 1e-9))).astype(np.float32)


def faded(samples: Samples) -> Samples:
    """Speech that begins and ends softly."""
    length = min(round(FADE * SAMPLE_RATE), len(samples) // 2)
    shape = np.ones(len(samples), np.float32)
    shape[:length] = np.linspace(0, 1, length, endpoint=False)
    shape[len(samples) - length :] = shape[:length][::-1]
    return samples * shape


def join(
    turns: Sequence[tuple[str, Utterance]], pauses: Sequence[float], rng: np.random.Generator
) -> tuple[Samples, list[Turn]]:
    """A recording of turns, with noise everywhere.

    Args:
        turns: languages and what is said.
        pauses: seconds before each turn but the first.
        rng: source of the noise.
    """
    parts: list[Samples] = []
    placed: list[Turn] = []
    length = 0
    for (language, utterance), seconds in zip(turns, [0.0, *pauses], strict=True):
        pause = round(seconds * SAMPLE_RATE)
        start, end = length + pause, length + pause + len(utterance.samples)
        placed.append(
            Turn(round(start / SAMPLE_RATE, 2), round(end / SAMPLE_RATE, 2), language,
                 utterance.text)
        )  # fmt: skip
        parts += [np.zeros(pause, np.float32), utterance.samples]
        length = end
    joined = np.concatenate(parts)
    noise = NOISE * rng.standard_normal(len(joined))
    return np.clip(joined + noise, -1, 1).astype(np.float32), placed


def _quiet_stretches(samples: Samples) -> tuple[list[tuple[int, int]], int]:
    """Stretches of silent frames, each from a frame to another, and the number of frames."""
    count = len(samples) // FRAME
    power = np.mean(np.square(samples[: count * FRAME].reshape(count, FRAME)), axis=1)
    level = 10 * np.log10(power + 1e-12)
    quiet = level < np.percentile(level, 95) + QUIET if count else np.zeros(0, bool)
    edges = np.flatnonzero(np.diff(np.concatenate([[False], quiet, [False]]).astype(np.int8)))
    return [(int(a), int(b)) for a, b in edges.reshape(-1, 2)], count


def trimmed(samples: Samples) -> Samples:
    """Speech without the silence before and after it."""
    stretches, count = _quiet_stretches(samples)
    margin = round(KEPT * SAMPLE_RATE)
    start, end = 0, len(samples)
    if stretches and stretches[0][0] == 0:
        start = max(0, stretches[0][1] * FRAME - margin)
    if stretches and stretches[-1][1] == count:
        end = min(end, stretches[-1][0] * FRAME + margin)
    return samples[start:end] if start < end else samples[:0]


def cut_at_pauses(utterance: Utterance) -> list[Utterance]:
    """The parts of a sentence between its pauses, with their texts.

    It is cut only where text and audio agree: there are as many pauses as punctuation marks inside
    the text, each about where its mark is. Otherwise the whole is returned.

    Args:
        utterance: trimmed speech.
    """
    texts = re.split(r"(?<=[,;:.!?])\s+", utterance.text.strip())
    stretches, count = _quiet_stretches(utterance.samples)
    pauses = [
        (start, end)
        for start, end in stretches
        if start > 0 and end < count and (end - start) * FRAME >= PAUSE * SAMPLE_RATE
    ]
    whole = [utterance]
    if not pauses or len(texts) != len(pauses) + 1:
        return whole
    spoken = count - sum(end - start for start, end in pauses)
    letters = sum(map(len, texts))
    cuts, said, silent = [0], 0, 0
    for text, (start, end) in zip(texts, pauses, strict=False):
        said += len(text)
        if abs((start - silent) / spoken - said / letters) > FAR:
            return whole
        silent += end - start
        cuts.append((start + end) // 2 * FRAME)
    cuts.append(len(utterance.samples))
    return [
        Utterance(trimmed(utterance.samples[start:end]), text)
        for text, start, end in zip(texts, cuts, cuts[1:], strict=False)
    ]
