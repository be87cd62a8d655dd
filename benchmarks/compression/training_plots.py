"""Draws word error rates against training time, and against the amount of speech.

    python -m benchmarks.compression.training_plots --log recipes/logs/base-en.jsonl \\
        --ablation benchmarks/results/ablation.json --output benchmarks/results

The log is a stage's `log.jsonl`; of the ablation, the trainings on parts of the speech are drawn.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
from matplotlib.figure import Figure

from baldwhisper_convert.training.log import read_log
from benchmarks.options import Benchmark

TIME_FILE, DATA_FILE = "wer_time.png", "wer_data.png"


def plot_time(log: Path, picture: Path) -> None:
    """Development word error rate over hours of training.

    Raises:
        click.ClickException: no development results in the log.
    """
    rows = read_log(log)
    seconds = {row["step"]: row["seconds"] for row in rows if "seconds" in row}
    evaluations = [row for row in rows if "dev" in row and row["step"] in seconds]
    if not evaluations:
        raise click.ClickException(f"{log}: no development results")
    figure = Figure(figsize=(5, 3.5), layout="constrained")
    axes = figure.subplots()
    hours = [seconds[row["step"]] / 3600 for row in evaluations]
    rates = [100 * row["dev"]["wer"] for row in evaluations]
    axes.plot(hours, rates, "o-", ms=4)
    limits = (0, 1.1 * max(rates))
    axes.set(xlabel="hours of training", ylabel="WER in %", ylim=limits, title=log.stem)
    axes.grid(alpha=0.3)
    figure.savefig(picture, dpi=120)


def points(variants: dict[str, dict[str, Any]], amount: str) -> list[tuple[float, list[float]]]:
    """Share of one kind of speech, with the rate and its interval, for those that differ in it.

    Args:
        variants: the ablation's; those trained for longer are compared.
        amount: `real` or `synthetic`.
    """
    other = "synthetic" if amount == "real" else "real"
    fixed = 0.0 if amount == "real" else 1.0
    rows = [row for row in variants.values() if row["longer"] > 1 and row[other] == fixed]
    found = [(row[amount], [100 * x for x in (row["wer"], *row["wer_interval"])]) for row in rows]
    return sorted(found)


def plot_data(ablation: Path, picture: Path) -> None:
    """Word error rate over the share of each kind of speech, with 95 % intervals."""
    variants = json.loads(ablation.read_text(encoding="utf-8"))["variants"]
    figure = Figure(figsize=(8, 3.5), layout="constrained")
    titles = {"real": "recordings, alone", "synthetic": "synthetic, besides all recordings"}
    panels = figure.subplots(1, 2, sharey=True)
    for axes, (amount, title) in zip(panels, titles.items(), strict=True):
        found = points(variants, amount)
        shares = [100 * share for share, _ in found]
        rates = [rate for _, (rate, _, _) in found]
        ends = [[r - low for _, (r, low, _) in found], [high - r for _, (r, _, high) in found]]
        axes.errorbar(shares, rates, yerr=ends, fmt="o-", ms=4, capsize=3)
        axes.set(xlabel=f"% of the speech: {title}")
        axes.grid(alpha=0.3)
    panels[0].set(ylabel="WER in %", ylim=(0, None))  # once both have their points
    figure.savefig(picture, dpi=120)


@click.command(cls=Benchmark)
@click.option("--log", required=True, type=click.Path(exists=True, path_type=Path),
              metavar="FILE", help="The log.jsonl of a stage.")  # fmt: skip
@click.option("--ablation", required=True, type=click.Path(exists=True, path_type=Path),
              metavar="FILE", help="Result of benchmarks.compression.ablation.")  # fmt: skip
@click.option("--output", required=True, type=click.Path(file_okay=False, path_type=Path),
              metavar="DIR", help="Folder for the plots.")  # fmt: skip
def main(log: Path, ablation: Path, output: Path) -> None:
    """Draw the curves."""
    output.mkdir(parents=True, exist_ok=True)
    plot_time(log, output / TIME_FILE)
    plot_data(ablation, output / DATA_FILE)


if __name__ == "__main__":
    main()
