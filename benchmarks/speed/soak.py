"""Thousands of short files, one after the other: does memory grow?

    python -m benchmarks.speed.soak --files 2000

Clips of half a second to four are cut from `examples/sample.wav`. Memory is what the process holds
now, not at most; it is read every hundred files, after the first two hundred, in which caches
fill.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click
import numpy as np

from baldwhisper_mlx.config import SAMPLE_RATE
from benchmarks.machines import SAMPLE, write_json

WARM_UP = 200


def resident_bytes() -> int:
    """What the process holds in memory now."""
    if sys.platform == "linux":
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")
    import subprocess

    found = subprocess.run(
        ["ps", "-o", "rss=", "-p", str(os.getpid())], capture_output=True, check=True, text=True
    )
    return 1024 * int(found.stdout)


@click.command()
@click.option("--model", help="Model folder; by default the one that comes with the package.")
@click.option("--files", default=2000, show_default=True)
@click.option("--most", default=4.0, show_default=True, help="Seconds of the longest clip.")
@click.option("--output", type=click.Path(path_type=Path))
def main(model: str | None, files: int, most: float, output: Path | None) -> None:
    """Transcribe FILES clips and watch the memory of this process."""
    import baldwhisper_mlx
    from baldwhisper_mlx.audio.load import load_audio

    loaded = baldwhisper_mlx.load_model(model)
    samples, rng = load_audio(SAMPLE), np.random.default_rng(0)
    rows = []
    for number in range(1, files + 1):
        length = round(rng.uniform(0.5, most) * SAMPLE_RATE)
        start = int(rng.integers(0, len(samples) - length))
        baldwhisper_mlx.transcribe(samples[start : start + length], loaded, language="en")
        if number % 100 == 0:
            rows.append({"files": number, "bytes": resident_bytes()})
            click.echo(f"{number} files: {rows[-1]['bytes'] / 1e6:.0f} MB")
    settled = [row["bytes"] for row in rows if row["files"] >= WARM_UP]
    if len(settled) > 1:
        drift = settled[-1] / settled[0] - 1
        click.echo(f"from {WARM_UP} files on: {100 * drift:+.1f} %")
        if output is not None:
            write_json(output, {"files": files, "drift": drift, "memory": rows})


if __name__ == "__main__":
    main()
