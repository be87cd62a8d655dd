"""Makes clean synthetic speech sound like recordings: speed, rooms, noise, level.

A model that hears only clean synthetic voices learns to trust their cleanness. The functions here
are plain formulas over float32 arrays at 16 kHz; `Augmentation` holds what was drawn, so that
metadata can say what was done to a clip. The order is that of a recording: the speaker's speed,
the room, the noise beside the microphone, then its gain.
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
    """Mains hum: 50 or 60 Hz and its first seven harmonics at falling random strengths."""
    base = float(rng.choice([50.0, 60.0]))
    times = np.arange(count) / SAMPLE_RATE
    waves = [
        rng.uniform(0.2, 1.0) / k * np.sin(2 * np.pi * (base * k * times + rng.uniform()))
        for k in range(1, 9)
    ]
    # a little noise beside it, as every recording with hum has
    return np.asarray(np.sum(waves, axis=0) + 0.02 * rng.standard_normal(count), np.float32)


def babble(count: int, clips: list[Audio], rng: np.random.Generator) -> Audio:
    """Five voices at once: other clips at equal power, each at its own speed and offset.

    Raises:
        ValueError: there is no clip to make it of.
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
    """`count` samples of white, pink, babble or hum noise, at no particular level.

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
    """What was drawn for one run of sentences.

    Attributes:
        level_db: rms in dBFS.
        speed: 1.0 is unchanged.
        t60: of the room in seconds, or None.
        wet_db: reverberant against direct energy; only with t60.
        noise: its kind, or None.
        snr_db: only with noise.
    """

    level_db: float
    speed: float = 1.0
    t60: float | None = None
    wet_db: float = -6.0
    noise: str | None = None
    snr_db: float = 30.0

    def to_dict(self) -> dict[str, Any]:
        """For metadata: only what was applied, rounded."""
        found: dict[str, Any] = {"level_db": round(self.level_db, 1)}
        if self.speed != 1.0:
            found["speed"] = round(self.speed, 3)
        if self.t60 is not None:
            found |= {"t60": round(self.t60, 2), "wet_db": round(self.wet_db, 1)}
        if self.noise is not None:
            found |= {"noise": self.noise, "snr_db": round(self.snr_db, 1)}
        return found


def draw_augmentation(rng: np.random.Generator) -> Augmentation:
    """Level always; speed for a half, noise for 0.4, a room for 0.3 of the runs."""
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
        clips: float32 arrays at 16 kHz; babble is made of them too.
        chosen: what to apply.
        rng: source of the room's and the noise's samples.

    Returns:
        As many clips; of other lengths if the speed is not 1.
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
        # a speaker is never at quite the same distance
        done.append(set_level(audio, chosen.level_db + float(rng.uniform(-1.0, 1.0))))
    return done
