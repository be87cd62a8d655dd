"""Whether memory grows over thousands of short files, transcribed sequentially.

    python -m benchmarks.speed.soak --files 2000

Clips of half a second to four are cut from `examples/sample.wav`. Memory is the resident size of
the process, not its peak; it is read every hundred files, and compared from two hundred files on,
when caches are full.
"""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np
import psutil

from baldwhisper_mlx.config import SAMPLE_RATE
from benchmarks.machines import SAMPLE
from benchmarks.options import Benchmark
from benchmarks.result_files import write_json

EVERY, WARM_UP = 100, 200
"""Files between two readings, and files before caches are full."""


@click.command(cls=Benchmark)
@click.option("--model", metavar="DIR", help="Model folder. Default: the bundled model.")
@click.option("--files", type=click.IntRange(min=1), default=2000, show_default=True,
              help="How many clips.")  # fmt: skip
@click.option("--most", default=4.0, show_default=True, help="Seconds of the longest clip.")
@click.option("--output", type=click.Path(path_type=Path), metavar="FILE", help="Result file.")
def main(model: str | None, files: int, most: float, output: Path | None) -> None:
    """Transcribe clips and report the memory of this process."""
    import baldwhisper_mlx
    from baldwhisper_mlx.audio.load import load_audio

    loaded = baldwhisper_mlx.load_model(model)
    samples, rng = load_audio(SAMPLE), np.random.default_rng(0)
    rows, process = [], psutil.Process()
    for number in range(1, files + 1):
        length = round(rng.uniform(0.5, most) * SAMPLE_RATE)
        start = int(rng.integers(0, len(samples) - length))
        baldwhisper_mlx.transcribe(samples[start : start + length], loaded, language="en")
        if number % EVERY == 0:
            rows.append({"files": number, "bytes": process.memory_info().rss})
            click.echo(f"{number} files: {rows[-1]['bytes'] / 1e6:.0f} MB")
    settled = [row["bytes"] for row in rows if row["files"] >= WARM_UP]
    if len(settled) > 1:
        drift = settled[-1] / settled[0] - 1
        click.echo(f"from {WARM_UP} files on: {100 * drift:+.1f} %")
        if output is not None:
            write_json(output, {"files": files, "drift": drift, "memory": rows})


if __name__ == "__main__":
    main()
