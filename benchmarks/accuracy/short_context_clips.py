"""What short_context.py transcribes: clips of speech, with noise if wanted, and sounds without."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np

from baldwhisper_mlx.audio.buffer import Samples
from baldwhisper_mlx.audio.load import load_audio
from baldwhisper_mlx.config import SAMPLE_RATE
from baldwhisper_mlx.evaluation.dataset import Source, Speech
from benchmarks.accuracy.adversarial import SOUNDS, noise, tones
from benchmarks.machines import SAMPLE
from benchmarks.result_files import data_name, spread

SOUND_SECONDS = (2, 5, 10, 20)
"""Lengths of the sounds without speech."""
NOISE_EXPONENTS = {"white": 0.0, "pink": 1.0}
TONES = "tones"
AUDIO_SUFFIXES = (".flac", ".mp3", ".ogg", ".opus", ".wav")


@dataclass(frozen=True)
class Item:
    """A clip of speech, or a sound without any."""

    name: str
    data: str | None
    """The folder, as results call it; None for a sound without speech."""
    reference: str
    samples: Samples


def clips(folders: Sequence[Path], limit: int | None, noise_at: str | None) -> Iterator[Item]:
    """The clips of all folders, those of each at equal steps over it.

    Args:
        folders: of speech.
        limit: clips of each folder.
        noise_at: as `with_noise` takes it; None for the clips as they are.
    """
    for folder in folders:
        speech = list(Speech(Source(name=str(folder))))
        for number, clip in enumerate(spread(speech, limit)):
            samples = clip.samples()
            if noise_at is not None:
                samples = with_noise(samples, noise_at, seed=number)
            name = data_name(folder)
            yield Item(f"{name}/{clip.name}", name, clip.text, samples)


def sounds() -> Iterator[Item]:
    """Silence, noise, hum and tones, in several lengths each."""
    for name, (make, spoken) in SOUNDS.items():
        if not spoken:
            samples = make()
            for seconds in SOUND_SECONDS:
                yield Item(f"{name}, {seconds} s", None, "", samples[: seconds * SAMPLE_RATE])


def parse_noise(text: str) -> tuple[str, float]:
    """Kind and signal-to-noise ratio in dB of noise given as KIND=DB.

    Raises:
        click.UsageError: it is not.
    """
    kind, _, level = text.rpartition("=")
    try:
        ratio = float(level)
    except ValueError:
        ratio = float("nan")
    is_known = kind in (*NOISE_EXPONENTS, TONES) or Path(kind).is_dir()
    if not is_known or not np.isfinite(ratio):
        raise click.UsageError(
            f"--noise {text}: give white, pink, tones or a folder of recordings, and a level in "
            "dB, such as pink=10"
        )
    return kind, ratio


def with_noise(samples: Samples, noise_at: str, seed: int) -> Samples:
    """A clip with noise, by the mean power of the whole clip.

    Args:
        samples: (n,) mono.
        noise_at: KIND=DB, as `parse_noise` reads it.
        seed: of steady noise; number of the recording in a folder.

    Raises:
        ValueError: the folder has no recordings.
    """
    kind, ratio = parse_noise(noise_at)
    level = float(np.sqrt(np.mean(np.square(samples))) * 10 ** (-ratio / 20))
    if kind in NOISE_EXPONENTS:
        return samples + noise(level, NOISE_EXPONENTS[kind], seed, len(samples))
    sound = np.resize(tones() if kind == TONES else _recording(Path(kind), seed), len(samples))
    power = max(float(np.mean(np.square(sound))), 1e-10)
    return np.asarray(samples + level / power**0.5 * sound, np.float32)


def _recording(folder: Path, number: int) -> Samples:
    """One of the recordings in a folder, by their names; numbers beyond the last start over."""
    paths = [path for path in sorted(folder.iterdir()) if path.suffix in AUDIO_SUFFIXES]
    if not paths:
        raise ValueError(f"{folder}: no recordings ({', '.join(AUDIO_SUFFIXES)})")
    return load_audio(paths[number % len(paths)])


def calibration_speech(folder: Path | None, count: int) -> list[Samples]:
    """The first recordings of a folder, or the demo's.

    Raises:
        ValueError: there are fewer than `count`.
    """
    if folder is None:
        found = [load_audio(SAMPLE)]
    else:
        found = [clip.samples() for clip in Speech(Source(name=str(folder), limit=count))]
    if len(found) < count:
        raise ValueError(
            f"{folder or SAMPLE.name}: recordings to calibrate on: {len(found)}, but "
            f"--calibration-recordings asks for {count}; name a larger folder with --calibration"
        )
    return found
