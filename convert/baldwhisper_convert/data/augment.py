"""Augments speech: speed, reverberation, noise, level.

Plain formulas over float32 samples at 16 kHz, applied in the order of a recording: the speaker's
speed, the room, the noise near the microphone, then the gain.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import soxr

from baldwhisper_convert.data.ranges import check_range
from baldwhisper_mlx.audio.buffer import Samples
from baldwhisper_mlx.config import SAMPLE_RATE

Audio = Samples
"""Mono samples (N,) float32 at 16 kHz."""

PEAK = 0.99
"""Largest magnitude that `set_level` scales to."""

RECORDED = 0.75
"""Share of the noise that is taken from recordings, if there are any."""


def rms_dbfs(audio: Audio) -> float:
    """20 log10 of the root mean square, where full scale is 1.0; -inf for silence."""
    power = float(np.mean(np.square(audio, dtype=np.float64)))
    return 10.0 * float(np.log10(power)) if power > 0.0 else float("-inf")


def set_level(audio: Audio, dbfs: float) -> Audio:
    """Scales to a level of `dbfs`, or to a peak of 0.99 where that would clip."""
    gain = 10.0 ** ((dbfs - rms_dbfs(audio)) / 20.0) if np.any(audio) else 1.0
    peak = float(np.max(np.abs(audio), initial=0.0))
    gain = min(gain, PEAK / peak if peak else gain)
    # The gain of an almost silent recording would overflow float32.
    return np.multiply(audio, gain, dtype=np.float64).astype(np.float32)


def change_speed(audio: Audio, speed: float) -> Audio:
    """Plays `speed` times as fast by resampling, which shifts the pitch too.

    The result has len(audio) / speed samples, up to rounding.
    """
    return np.asarray(soxr.resample(audio, speed * SAMPLE_RATE, SAMPLE_RATE), np.float32)


def impulse_response(t60: float, wet_db: float, rng: np.random.Generator) -> Audio:
    """The impulse response of a synthetic room: direct sound and exponentially decaying noise.

    h[n] = delta[n] + g w[n] 10^(-3 n / (t60 rate)) from 3 ms on, with w white Gaussian noise. The
    tail is 60 dB down at t60 (Sabine's definition of reverberation time), where it is cut off.

    Args:
        t60: reverberation time in seconds.
        wet_db: energy of the tail relative to the direct sound, in dB.
        rng: source of the noise.

    Returns:
        t60 x 16,000 samples, the first of them 1.0.
    """
    count = round(t60 * SAMPLE_RATE)
    tail = rng.standard_normal(count) * 10.0 ** (-3.0 * np.arange(count) / count)
    tail[: round(0.003 * SAMPLE_RATE)] = 0.0
    tail *= 10.0 ** (wet_db / 20.0) / np.sqrt(np.sum(np.square(tail)))
    tail[0] = 1.0
    return tail.astype(np.float32)


def convolve(audio: Audio, response: Audio) -> Audio:
    """Linear convolution by FFT, cut to the length of `audio`."""
    size = 1 << (len(audio) + len(response) - 2).bit_length()
    product = np.fft.rfft(audio, size) * np.fft.rfft(response, size)
    convolved: Audio = np.fft.irfft(product, size)[: len(audio)].astype(np.float32)
    return convolved


def pink_noise(
    count: int, rng: np.random.Generator
) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Gaussian noise (count,) whose power falls with frequency as 1/f.

    White noise divided by sqrt(f) in the frequency domain; its level is arbitrary.
    """
    spectrum = np.fft.rfft(rng.standard_normal(count))
    spectrum /= np.sqrt(np.maximum(np.arange(len(spectrum)), 1.0))
    return np.fft.irfft(spectrum, count)


def add_noise(audio: Audio, noise: Audio, snr_db: float) -> Audio:
    """Adds noise scaled so that 10 log10(P_speech / P_noise) over the clip is `snr_db`."""
    if not np.any(noise) or not np.any(audio):
        return audio
    gain = 10.0 ** ((rms_dbfs(audio) - rms_dbfs(noise) - snr_db) / 20.0)
    mixed: Audio = (audio + gain * noise).astype(np.float32)
    return mixed


def excerpt(recording: Audio, count: int, rng: np.random.Generator) -> Audio:
    """`count` samples of a recording from a random start; it is repeated if it is too short.

    Args:
        recording: at least one sample.
        count: of samples wanted.
        rng: draws the start.
    """
    start = int(rng.integers(len(recording)))
    cut: Audio = np.take(recording, np.arange(start, start + count), mode="wrap")
    return cut


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """Probabilities and ranges of the augmentation of a window.

    Raises:
        ValueError: a probability outside 0 to 1, or a range whose ends are out of order.
    """

    speed: float = 0.5
    """Probability of playing it faster, up to `fastest` times as fast."""
    fastest: float = 1.12
    """Largest factor of `speed`."""
    room: float = 0.3
    """Probability of a room of 0.15 to 0.6 s reverberation time."""
    noise: float = 0.4
    """Probability of noise: an excerpt of `recordings`, or white or pink noise."""
    recordings: str = ""
    """Folder of recordings of noise, which is searched for audio files; empty for none."""
    snr: tuple[float, float] = (8.0, 30.0)
    """Range of the signal-to-noise ratio in dB."""
    level: tuple[float, float] = (-32.0, -14.0)
    """Range of the level in dBFS."""

    def __post_init__(self) -> None:
        check_range(self, ("speed", "room", "noise"), 0, 1)
        check_range(self, ("fastest",), 1, 2)
        for name in ("snr", "level"):
            pair = tuple(getattr(self, name))
            if len(pair) != 2 or pair[0] > pair[1]:
                raise ValueError(f"{name} must be a range, lower end first, not {pair}")
            object.__setattr__(self, name, pair)


def augment(
    audio: Audio,
    settings: Augmentation,
    rng: np.random.Generator,
    recordings: Sequence[Audio] = (),
) -> tuple[Audio, float]:
    """Draws and applies one augmentation.

    Args:
        audio: the speech.
        settings: probabilities and ranges.
        rng: source of all draws.
        recordings: of noise; with some, `RECORDED` of the noise is an excerpt of one of them.

    Returns:
        The samples, no longer than before, and the speed.
    """
    speed = 1.0
    if rng.random() < settings.speed:
        speed = float(rng.uniform(1.0, settings.fastest))
        audio = change_speed(audio, speed)
    if rng.random() < settings.room:
        response = impulse_response(rng.uniform(0.15, 0.6), rng.uniform(-12.0, -3.0), rng)
        audio = convolve(audio, response)
    if rng.random() < settings.noise:
        noise = _draw_noise(len(audio), rng, recordings)
        audio = add_noise(audio, noise, rng.uniform(*settings.snr))
    return set_level(audio, rng.uniform(*settings.level)), speed


def _draw_noise(count: int, rng: np.random.Generator, recordings: Sequence[Audio]) -> Audio:
    """Noise (count,) of any level: an excerpt of a recording, white, or pink."""
    if recordings and rng.random() < RECORDED:
        return excerpt(recordings[int(rng.integers(len(recordings)))], count, rng)
    white = rng.random() < 0.5
    noise = rng.standard_normal(count) if white else pink_noise(count, rng)
    return noise.astype(np.float32)
