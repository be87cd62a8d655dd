"""Augments clean synthetic speech: speed, reverberation, noise, level.

A model trained on clean synthetic voices alone fails on noisy recordings. The functions are plain
formulas over float32 arrays at 16 kHz, applied in the order of a recording: the speaker's speed,
the room, the noise near the microphone, then the gain. `Augmentation` holds the drawn values, which
the metadata of a clip records.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from baldwhisper_convert.data.augment import (
    Audio,
    add_noise,
    change_speed,
    convolve,
    impulse_response,
    pink_noise,
    set_level,
)
from baldwhisper_mlx.config import SAMPLE_RATE

NOISES = ("white", "pink", "babble", "hum")


def hum(count: int, rng: np.random.Generator) -> Audio:
    """Mains hum: harmonics 1 to 8 of 50 or 60 Hz, harmonic k with a random amplitude over k."""
    base = float(rng.choice([50.0, 60.0]))
    times = np.arange(count) / SAMPLE_RATE
    waves = [
        rng.uniform(0.2, 1.0) / k * np.sin(2 * np.pi * (base * k * times + rng.uniform()))
        for k in range(1, 9)
    ]
    # Every recording with hum has some noise too.
    return np.asarray(np.sum(waves, axis=0) + 0.02 * rng.standard_normal(count), np.float32)


def babble(count: int, clips: list[Audio], rng: np.random.Generator) -> Audio:
    """Five voices at once: other clips at equal power, each at its own speed and offset.

    Raises:
        ValueError: no clips.
    """
    if not clips:
        raise ValueError("babble needs at least one clip of speech")
    mixed = np.zeros(count, np.float32)
    for _ in range(5):
        voice = change_speed(clips[int(rng.integers(len(clips)))], float(rng.uniform(0.8, 1.25)))
        voice = np.resize(np.roll(voice, int(rng.integers(len(voice)))), count)
        mixed += voice / max(float(np.sqrt(np.mean(np.square(voice)))), 1e-6)
    return mixed


def make_noise(kind: str, count: int, clips: list[Audio], rng: np.random.Generator) -> Audio:
    """Makes `count` samples of white, pink, babble or hum noise, at an arbitrary level.

    Raises:
        ValueError: unknown kind, or babble without clips.
    """
    if kind == "white":
        return rng.standard_normal(count).astype(np.float32)
    if kind == "pink":
        return pink_noise(count, rng).astype(np.float32)
    if kind == "babble":
        return babble(count, clips, rng)
    if kind == "hum":
        return hum(count, rng)
    raise ValueError(f"unknown noise {kind!r}, expected one of {', '.join(NOISES)}")


@dataclass(frozen=True)
class Augmentation:
    """The augmentation drawn for one run of sentences.

    Attributes:
        level_db: RMS in dBFS.
        speed: 1.0 is unchanged.
        t60: reverberation time in seconds, or None for no room.
        wet_db: reverberant relative to direct energy; only with t60.
        noise: its kind, or None.
        snr_db: signal-to-noise ratio; only with noise.
    """

    level_db: float
    speed: float = 1.0
    t60: float | None = None
    wet_db: float = -6.0
    noise: str | None = None
    snr_db: float = 30.0

    def to_dict(self) -> dict[str, Any]:
        """The applied values, rounded, for metadata."""
        applied: dict[str, Any] = {"level_db": round(self.level_db, 1)}
        if self.speed != 1.0:
            applied["speed"] = round(self.speed, 3)
        if self.t60 is not None:
            applied |= {"t60": round(self.t60, 2), "wet_db": round(self.wet_db, 1)}
        if self.noise is not None:
            applied |= {"noise": self.noise, "snr_db": round(self.snr_db, 1)}
        return applied


def draw_augmentation(rng: np.random.Generator) -> Augmentation:
    """Draws a level for every run, speed for 0.5, noise for 0.4 and a room for 0.3 of them."""
    return Augmentation(
        level_db=float(rng.uniform(-30.0, -12.0)),
        speed=float(rng.uniform(0.9, 1.1)) if rng.random() < 0.5 else 1.0,
        t60=float(rng.uniform(0.15, 0.6)) if rng.random() < 0.3 else None,
        wet_db=float(rng.uniform(-12.0, 0.0)),
        noise=str(rng.choice(NOISES)) if rng.random() < 0.4 else None,
        snr_db=float(rng.uniform(8.0, 30.0)),
    )


def augment(clips: list[Audio], chosen: Augmentation, rng: np.random.Generator) -> list[Audio]:
    """Applies one augmentation to all clips of a run: one speed, one room, one kind of noise.

    Args:
        clips: float32 arrays at 16 kHz; babble is made from them too.
        chosen: what to apply.
        rng: source of the room and the noise.

    Returns:
        As many clips; their lengths change if the speed is not 1.
    """
    response = None if chosen.t60 is None else impulse_response(chosen.t60, chosen.wet_db, rng)
    done = []
    for place, clip in enumerate(clips):
        audio = clip if chosen.speed == 1.0 else change_speed(clip, chosen.speed)
        if response is not None:
            audio = convolve(audio, response)
        if chosen.noise is not None:
            others = [c for i, c in enumerate(clips) if i != place] or clips
            noise = make_noise(chosen.noise, len(audio), others, rng)
            audio = add_noise(audio, noise, chosen.snr_db)
        # The distance of a speaker varies a little from clip to clip.
        done.append(set_level(audio, chosen.level_db + float(rng.uniform(-1.0, 1.0))))
    return done
