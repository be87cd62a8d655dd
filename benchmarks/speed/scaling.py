"""Time and memory over the length of the audio and over the batch size.

Long recordings are made by repeating AUDIO, files or folders of them. Every point is measured in
a process of its own, after a warm-up on the shortest recording. The result file is written after
every point, and an interrupted run resumes when you rerun the command.

    python -m benchmarks.speed.scaling AUDIO... --model "student=DIR" --model "teacher=DIR"
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import soundfile

from baldwhisper_mlx.audio.buffer import Samples
from baldwhisper_mlx.bench.audio_clips import read_recordings
from baldwhisper_mlx.bench.machine import load_average
from baldwhisper_mlx.bench.processes import Child
from baldwhisper_mlx.config import SAMPLE_RATE
from benchmarks.machines import describe
from benchmarks.options import Benchmark, language_option, models_option, named_model, output_option
from benchmarks.result_files import resume, write_json

SCHEMA = "baldwhisper-scaling/1"
LENGTHS = (10.0, 30.0, 60.0, 300.0, 600.0, 1800.0, 3600.0, 10800.0)
BATCHES = (1, 2, 4, 8, 16, 32)
TOKENS = 128
VARIETY = 600.0
"""Seconds of AUDIO that are enough before it repeats itself."""
SAMPLE_BYTES = 4 * SAMPLE_RATE
"""Bytes that a second of decoded audio takes in memory."""


def write_repeated(recordings: Sequence[Samples], seconds: float, path: Path) -> None:
    """Writes recordings in turn, repeated to a length in seconds, as a 16-bit wav file."""
    left = round(seconds * SAMPLE_RATE)
    with soundfile.SoundFile(path, "w", SAMPLE_RATE, 1, "PCM_16") as file:
        while left:
            for samples in recordings:
                file.write(samples[:left])
                left -= len(samples[:left])


def measure_length(
    model: Path, recordings: Sequence[Samples], seconds: float, shortest: float, language: str
) -> dict[str, Any]:
    """One recording from file to text, greedy; warmed up on one of `shortest` seconds."""
    with tempfile.TemporaryDirectory() as folder:
        short, long = Path(folder, "short.wav"), Path(folder, "long.wav")
        write_repeated(recordings, min(shortest, seconds), short)
        write_repeated(recordings, seconds, long)
        how = {"language": language, "temperature": 0.0}
        with Child("baldwhisper-mlx", str(model)) as child:
            child.ask("transcribe", audio=str(short), **how)
            load = load_average()
            found: dict[str, Any] = child.ask("transcribe", audio=str(long), **how)
    del found["text"]
    return {"audio_seconds": seconds, "load": load} | found


def measure_batch(model: Path, batch: int, tokens: int) -> dict[str, Any]:
    """Forced tokens for a batch, warmed up with a few."""
    with Child("baldwhisper-mlx", str(model)) as child:
        child.ask("decode", batch=batch, tokens=min(8, tokens), timestamps=True)
        load = load_average()
        found: dict[str, Any] = child.ask("decode", batch=batch, tokens=tokens, timestamps=True)
    return {"batch": batch, "load": load} | found


def exponent(points: Sequence[dict[str, Any]]) -> float | None:
    """The power of its length by which the time of a recording grows; 1 is linear.

    Least squares on logarithms, over recordings of at least a window (30 s), because shorter
    ones cost a window too. None for fewer than two of them.
    """
    pairs = [
        (math.log(p["audio_seconds"]), math.log(p["seconds"]))
        for p in points
        if p["audio_seconds"] >= 30
    ]
    if len(pairs) < 2:
        return None
    x0, y0 = (sum(values) / len(pairs) for values in zip(*pairs, strict=True))
    above = sum((x - x0) * (y - y0) for x, y in pairs)
    return float(above / sum((x - x0) ** 2 for x, _ in pairs))


@click.command(cls=Benchmark)
@click.argument("audio", nargs=-1, required=True)
@models_option()
@click.option(
    "--length",
    "lengths",
    type=click.FloatRange(min=0, min_open=True),
    multiple=True,
    default=LENGTHS,
    show_default=True,
    help="Seconds of audio; repeatable.",
)
@click.option(
    "--batch",
    "batches",
    type=click.IntRange(min=1),
    multiple=True,
    default=BATCHES,
    show_default=True,
    help="Clips decoded together; repeatable.",
)
@click.option("--tokens", type=click.IntRange(min=1), default=TOKENS, show_default=True,
              help="Forced tokens for each clip.")  # fmt: skip
@language_option
@output_option("scaling")
def main(
    audio: tuple[str, ...],
    models: tuple[str, ...],
    lengths: tuple[float, ...],
    batches: tuple[int, ...],
    tokens: int,
    language: str,
    output: Path,
) -> None:
    """Measure time and memory of models over the length of AUDIO, repeated, and the batch.

    AUDIO is files of speech, or folders of them.
    """
    recordings = read_recordings(audio, 1, min(max(lengths), VARIETY))
    empty = {
        "schema": SCHEMA,
        "machine": describe(),
        "language": language,
        "tokens": tokens,
        "models": {},
    }
    result = resume(output, empty, "models")
    for item in models:
        name, folder = named_model(item)
        found = result["models"].setdefault(name, {"lengths": [], "batches": []})
        for batch in batches:
            if all(point["batch"] != batch for point in found["batches"]):
                point = measure_batch(folder, batch, tokens)
                _keep(found["batches"], point, "batch", output, result)
                click.echo(f"{name}, batch {batch}: {_words(point)}")
        for seconds in sorted(lengths):
            if all(point["audio_seconds"] != seconds for point in found["lengths"]):
                point = measure_length(folder, recordings, seconds, min(lengths), language)
                _keep(found["lengths"], point, "audio_seconds", output, result)
                click.echo(f"{name}, {seconds:g} s: {_words(point)}")
        power = exponent(found["lengths"])
        if power is not None:
            click.echo(f"{name}: time grows with the length to the power {power:.3f}")


def _keep(
    points: list[dict[str, Any]],
    point: dict[str, Any],
    key: str,
    output: Path,
    result: dict[str, Any],
) -> None:
    points.append(point)
    points.sort(key=lambda each: each[key])
    write_json(output, result)


def _words(point: dict[str, Any]) -> str:
    return (
        f"{point['seconds']:.2f} s, {point['tokens'] / point['seconds']:.1f} tokens/s, "
        f"peak {point['peak_mlx_bytes'] / 1e6:.0f} MB in MLX, "
        f"{point['peak_process_bytes'] / 1e6:.0f} MB in all"
    )


if __name__ == "__main__":
    main()
