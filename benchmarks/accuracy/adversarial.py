"""Words that models invent in non-speech: silence, hum, noise, tones, clicks, gaps in speech.

    python -m benchmarks.accuracy.adversarial --model "tiny-en=" --model "whisper-base=DIR" \\
        --output benchmarks/results/adversarial.json

Every sound is synthesized here; the speech around the gaps is `examples/sample.wav`. Each is
transcribed without options, with `--vad`, and in batches. Insertions and substitutions count as
invented words; a loop is a phrase repeated many times.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt

from baldwhisper_mlx.config import SAMPLE_RATE
from benchmarks.machines import SAMPLE
from benchmarks.options import Benchmark, model_or_bundled, models_option, output_option
from benchmarks.result_files import write_json

Samples = npt.NDArray[np.float32]
SECONDS = 40.0

WAYS: dict[str, dict[str, Any]] = {
    "as it is": {},
    "vad": {"vad": True},
    "batches": {"batch_size": 4},
}


def _time(seconds: float) -> npt.NDArray[np.float64]:
    return np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE


def silence(seconds: float = SECONDS) -> Samples:
    """Digital zeros."""
    return np.zeros(round(seconds * SAMPLE_RATE), np.float32)


def noise(
    level: float, exponent: float, seed: int = 0, n: int = round(SECONDS * SAMPLE_RATE)
) -> Samples:
    """Steady noise (n,) whose power falls with frequency f as f^-exponent; level in full scale."""
    spectrum = np.fft.rfft(np.random.default_rng(seed).standard_normal(n))
    spectrum[1:] /= np.arange(1, len(spectrum)) ** (exponent / 2)
    sound = np.fft.irfft(spectrum, n)
    return np.asarray(level * sound / np.sqrt(np.mean(np.square(sound))), np.float32)


def walk() -> Samples:
    """A random walk: brown noise that comes and goes in loudness.

    The seed is one whose louder parts alone had words written over them.
    """
    steps = np.random.default_rng(5).standard_normal(round(SECONDS * SAMPLE_RATE))
    sound = np.cumsum(steps)
    return np.asarray(0.5 * sound / np.abs(sound).max(), np.float32)


def hum() -> Samples:
    """50 Hz and its harmonics."""
    t = _time(SECONDS)
    waves = np.sum([np.sin(2 * np.pi * 50 * k * t) / k for k in (1, 2, 3, 5)], axis=0)
    return np.asarray(0.05 * waves, np.float32)


def tones() -> Samples:
    """Chords of half a second, with attack and decay, as of a slow melody."""
    rng = np.random.default_rng(1)
    parts = []
    for _ in range(round(SECONDS / 0.5)):
        t = _time(0.5)
        notes = 220 * 2 ** (rng.choice([0, 2, 4, 5, 7, 9, 11, 12], 3) / 12)
        parts.append(sum(np.sin(2 * np.pi * note * t) for note in notes) * np.exp(-4 * t) / 3)
    return (0.3 * np.concatenate(parts)).astype(np.float32)


def clicks() -> Samples:
    """Two short clicks a second, at uneven times."""
    rng = np.random.default_rng(2)
    sound = silence()
    for place in rng.integers(0, len(sound) - 80, round(2 * SECONDS)):
        sound[place : place + 80] += 0.5 * rng.standard_normal(80).astype(np.float32)
    return sound


def gaps() -> Samples:
    """Speech, a minute of quiet noise, speech, a minute of silence, speech."""
    from baldwhisper_mlx.audio.load import load_audio

    speech = load_audio(SAMPLE)
    quiet = noise(0.001, 0.0)
    minute = np.concatenate([quiet, quiet])[: 60 * SAMPLE_RATE]
    return np.concatenate([speech, minute, speech, silence(60), speech])


SOUNDS: dict[str, tuple[Callable[[], Samples], int]] = {
    "silence": (silence, 0),
    "quiet white noise": (lambda: noise(0.001, 0.0), 0),
    "loud white noise": (lambda: noise(0.1, 0.0), 0),
    "pink noise": (lambda: noise(0.05, 1.0), 0),
    "brown noise": (walk, 0),
    "hum": (hum, 0),
    "tones": (tones, 0),
    "clicks": (clicks, 0),
    "speech with gaps of a minute": (gaps, 3),
}
"""Name to what synthesizes it, and how often the sample is in it."""


def measure(loaded: Any, samples: Samples, spoken: int, way: dict[str, Any]) -> dict[str, Any]:
    """Words written, invented and missed, and whether there is a loop."""
    import baldwhisper_mlx
    from baldwhisper_mlx.evaluation.normalizers import load_normalizer
    from baldwhisper_mlx.evaluation.scoring import score

    reference = " ".join([SAMPLE.with_suffix(".txt").read_text(encoding="utf-8")] * spoken)
    result = baldwhisper_mlx.transcribe(samples, loaded, language="en", **way)
    scored = score(reference, result.text, load_normalizer("basic"))
    return {
        "words": len(scored.hypothesis.split()),
        "invented": scored.words.insertions + scored.words.substitutions,
        "missed": scored.words.deletions,
        "loop": scored.is_loop,
        "text": "" if spoken else result.text,
    }


@click.command(cls=Benchmark)
@models_option(required=False, bundled=True)
@output_option()
def main(models: tuple[str, ...], output: Path) -> None:
    """Transcribe sounds without speech, and speech with long gaps, with each set of options."""
    import baldwhisper_mlx

    result: dict[str, Any] = {"seconds": SECONDS}
    for item in models or ("tiny-en=",):
        name, folder = model_or_bundled(item)
        loaded = baldwhisper_mlx.load_model(folder)
        rows = result.setdefault("models", {}).setdefault(name, {})
        for sound, (make, spoken) in SOUNDS.items():
            samples = make()
            for way, options in WAYS.items():
                found = measure(loaded, samples, spoken, options)
                rows.setdefault(sound, {})[way] = found
                click.echo(
                    f"{name}, {sound}, {way}: {found['words']} words, {found['invented']} "
                    f"invented, {found['missed']} missed" + (", a loop" if found["loop"] else "")
                )
        write_json(output, result)


if __name__ == "__main__":
    main()
