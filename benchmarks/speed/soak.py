"""Whether memory grows over thousands of short files, or over an hour of live audio.

    python -m benchmarks.speed.soak --files 2000 --output benchmarks/results/soak.json
    python -m benchmarks.speed.soak --live 3600 --output benchmarks/results/soak_live.json

Clips of half a second to four are cut from `examples/sample.wav`, and transcribed sequentially; or,
with `--live`, clips of up to nine seconds with pauses between them are fed to a `LiveTranscriber`,
a tenth of a second at a time, as fast as it takes them. Memory is the resident size of the process,
not its peak; it is read every hundred files or minute of audio, and compared from when caches are
full.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
import psutil

from baldwhisper_mlx.audio.buffer import Samples
from baldwhisper_mlx.config import SAMPLE_RATE
from benchmarks.machines import SAMPLE
from benchmarks.options import Benchmark
from benchmarks.result_files import write_json

EVERY, WARM_UP = 100, 200
"""Files between two readings, and files before caches are full."""
LIVE_EVERY, LIVE_WARM_UP = 60, 300
"""Seconds of live audio between two readings, and before caches are full."""


@click.command(cls=Benchmark)
@click.option("--model", metavar="DIR", help="Model folder. Default: the bundled model.")
@click.option("--files", type=click.IntRange(min=1), default=2000, show_default=True,
              help="How many clips.")  # fmt: skip
@click.option("--most", default=4.0, show_default=True, help="Seconds of the longest clip.")
@click.option("--live", "live_seconds", type=click.IntRange(min=1), metavar="SECONDS",
              help="Feed so much live audio instead, with the default settings.")  # fmt: skip
@click.option("--output", type=click.Path(path_type=Path), metavar="FILE", help="Result file.")
def main(
    model: str | None, files: int, most: float, live_seconds: int | None, output: Path | None
) -> None:
    """Transcribe clips, or live audio, and report the memory of this process."""
    import baldwhisper_mlx
    from baldwhisper_mlx.audio.load import load_audio

    loaded, samples = baldwhisper_mlx.load_model(model), load_audio(SAMPLE)
    result: dict[str, Any]
    if live_seconds is not None:
        unit, warm_up, result = "seconds", LIVE_WARM_UP, {"seconds": live_seconds}
        counts = feed_live(loaded, samples, live_seconds)
    else:
        unit, warm_up, result = "files", WARM_UP, {"files": files}
        counts = transcribe_files(loaded, samples, files, most)
    rows, process = [], psutil.Process()
    for count in counts:
        rows.append({unit: count, "bytes": process.memory_info().rss})
        click.echo(f"{count} {unit}: {rows[-1]['bytes'] / 1e6:.0f} MB")
    settled = [row["bytes"] for row in rows if row[unit] >= warm_up]
    if len(settled) > 1:
        drift = settled[-1] / settled[0] - 1
        click.echo(f"from {warm_up} {unit} on: {100 * drift:+.1f} %")
        if output is not None:
            write_json(output, result | {"drift": drift, "memory": rows})
    else:
        raise click.ClickException(f"too few {unit}: memory is compared from {warm_up} on")


def transcribe_files(loaded: Any, samples: Samples, files: int, most: float) -> Iterator[int]:
    """Transcribes clips; yields their number when memory is to be read."""
    import baldwhisper_mlx

    rng = np.random.default_rng(0)
    for number in range(1, files + 1):
        clip = cut(samples, rng.uniform(0.5, most), rng)
        baldwhisper_mlx.transcribe(clip, loaded, language="en")
        if number % EVERY == 0:
            yield number


def feed_live(loaded: Any, samples: Samples, seconds: int) -> Iterator[int]:
    """Feeds clips with pauses to one stream; yields its seconds when memory is to be read."""
    from baldwhisper_mlx.transcription.live import LiveTranscriber

    live, rng = LiveTranscriber(loaded, language="en"), np.random.default_rng(0)
    fed, block = 0, SAMPLE_RATE // 10
    while fed < seconds * SAMPLE_RATE:
        pause = np.zeros(round(rng.uniform(1, 9) * SAMPLE_RATE), np.float32)
        part = np.concatenate([cut(samples, rng.uniform(1, 9), rng), pause])
        for first in range(0, len(part), block):
            before = fed // (LIVE_EVERY * SAMPLE_RATE)
            fed += len(part[first : first + block])
            live.feed(part[first : first + block])
            if fed // (LIVE_EVERY * SAMPLE_RATE) > before:
                yield fed // SAMPLE_RATE
    live.finish()


def cut(samples: Samples, seconds: float, rng: np.random.Generator) -> Samples:
    """A part of a recording, of some length, from anywhere."""
    length = min(round(seconds * SAMPLE_RATE), len(samples) - 1)
    start = int(rng.integers(0, len(samples) - length))
    return samples[start : start + length]


if __name__ == "__main__":
    main()
