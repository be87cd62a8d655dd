"""Ten minutes of speech in one recording: sequentially, without silences, and in batches.

    python -m benchmarks.speed.long_recordings AUDIOFOLDER --model "tiny-en=" --model "base=DIR" \\
        --output benchmarks/results/long_recordings.json

Clips are concatenated with pauses; every way is timed in turn, after a warm-up, and its word errors
are counted against the clips' texts.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt

from baldwhisper_mlx.audio.buffer import Samples
from baldwhisper_mlx.audio.load import load_audio
from baldwhisper_mlx.audio.speech_dataset import audio_of, read_rows
from baldwhisper_mlx.config import SAMPLE_RATE
from benchmarks.machines import describe
from benchmarks.options import (
    Benchmark,
    language_option,
    model_or_bundled,
    models_option,
    normalizer_option,
    output_option,
)
from benchmarks.result_files import write_json

PAUSE = 0.6
"""Seconds between two clips."""


def recording(folder: str, seconds: float) -> tuple[Samples, str]:
    """Clips of a folder with pauses between them, `seconds` long or more, and their text."""
    rows, base = read_rows(folder)
    parts: list[npt.NDArray[np.float32]] = []
    texts, length = [], 0
    pause = np.zeros(round(PAUSE * SAMPLE_RATE), np.float32)
    for row in rows:
        if length >= seconds * SAMPLE_RATE:
            break
        samples = load_audio(str(audio_of(row, "audio", base)))
        parts += [samples, pause]
        texts.append(str(row["text"]))
        length += len(samples) + len(pause)
    return np.concatenate(parts), " ".join(texts)


@click.command(cls=Benchmark)
@click.argument("folder")
@models_option(required=False, bundled=True)
@click.option("--seconds", default=600.0, show_default=True, help="Length of the recording.")
@click.option("--batch", "batches", type=click.IntRange(min=1), multiple=True, default=(4, 8, 16),
              show_default=True, help="Windows decoded together; repeatable.")  # fmt: skip
@click.option("--rounds", type=click.IntRange(min=1), default=2, show_default=True,
              help="Transcriptions of each way; medians count.")  # fmt: skip
@language_option
@normalizer_option
@output_option()
def main(
    folder: str,
    models: tuple[str, ...],
    seconds: float,
    batches: tuple[int, ...],
    rounds: int,
    language: str,
    normalizer: str,
    output: Path,
) -> None:
    """Transcribe ten minutes of FOLDER in every way, and count time and errors."""
    import baldwhisper_mlx
    from baldwhisper_mlx.evaluation.normalizers import load_normalizer
    from baldwhisper_mlx.evaluation.scoring import score

    samples, reference = recording(folder, seconds)
    ways: dict[str, dict[str, Any]] = {"straight": {}, "vad": {"vad": True}}
    ways |= {f"batches of {size}": {"batch_size": size} for size in batches}
    result: dict[str, Any] = {
        "machine": describe(), "audio_seconds": len(samples) / SAMPLE_RATE,
        "models": {},
    }  # fmt: skip
    clean = load_normalizer(normalizer)
    for item in models or ("tiny-en=",):
        name, model = model_or_bundled(item)
        loaded = baldwhisper_mlx.load_model(model)
        baldwhisper_mlx.transcribe(samples[: 30 * SAMPLE_RATE], loaded, language=language)
        rows: dict[str, Any] = {way: {"seconds": []} for way in ways}
        for _ in range(rounds):
            for way, options in ways.items():
                began = time.perf_counter()
                transcript = baldwhisper_mlx.transcribe(
                    samples, loaded, language=language, **options
                )
                rows[way]["seconds"].append(time.perf_counter() - began)
                words = score(reference, transcript.text, clean).words
                rows[way]["wer"] = words.errors / words.total
        for way, row in rows.items():
            taken = float(np.median(row["seconds"]))
            ratio = float(np.median(np.divide(rows["straight"]["seconds"], row["seconds"])))
            row |= {"speed_up": ratio}
            click.echo(f"{name}, {way}: {taken:.1f} s, {ratio:.2f} times as fast, "
                       f"WER {100 * row['wer']:.2f} %")  # fmt: skip
        result["models"][name] = rows
        write_json(output, result)


if __name__ == "__main__":
    main()
