"""The plots of docs/reproduction.md, from the result files of its tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from baldwhisper_mlx.bench.plot import save
from benchmarks.report.reproduction import read

GROUPS = {"layers": "fewer layers", "vocabulary": "factorized embedding, of the merged student"}
PLAIN_RANK = "factorized, rank "
"""Start of the names of the variants that differ in the rank only."""


def draw_reproduction(folder: Path) -> None:
    """Writes the pictures for which there are results.

    Args:
        folder: of the result files; the pictures go there too.
    """
    found = read(folder)
    if "variants" in found:
        save(draw_curves(found["variants"]), folder / "reproduction_curves.png")
        save(draw_ranks(found["variants"]), folder / "reproduction_ranks.png")
    if "search" in found:
        from baldwhisper_convert.pipeline.search import plot_trials

        plot_trials(found["search"]["trials"], folder / "reproduction_search.png")


def draw_curves(result: dict[str, Any]) -> Figure:
    """Word error rates over the steps of training, a panel a group."""
    figure = Figure(figsize=(11, 4.5), layout="constrained")
    panels = figure.subplots(1, len(GROUPS), sharey=True)
    for axes, (group, title) in zip(panels, GROUPS.items(), strict=True):
        members = {n: row for n, row in result["variants"].items() if row["group"] == group}
        for number, (name, row) in enumerate(members.items()):
            steps, rates = zip(*row["curve"], strict=True)
            style = "-" if number == 0 else "--" if number < 10 else ":"
            axes.plot(steps, [100 * rate for rate in rates], f"o{style}", ms=3, label=name)
        axes.set(xlabel="steps", title=title)
        axes.grid(alpha=0.3)
        if members:
            axes.legend(fontsize=7)
    panels[0].set(ylabel="WER in %")
    return figure


def draw_ranks(result: dict[str, Any]) -> Figure:
    """Word error rate, with its 95 % interval, over the size of the model, for every rank."""
    ranks = {
        name.removeprefix(PLAIN_RANK): row
        for name, row in result["variants"].items()
        if name.startswith(PLAIN_RANK)
    }
    rows = list(ranks.values())
    rates = [100 * row["wer"] for row in rows]
    low = [rate - 100 * row["wer_interval"][0] for rate, row in zip(rates, rows, strict=True)]
    high = [100 * row["wer_interval"][1] - rate for rate, row in zip(rates, rows, strict=True)]
    sizes = [row["parameters"] / 1e6 for row in rows]
    figure = Figure(figsize=(5, 3.5), layout="constrained")
    axes = figure.subplots()
    axes.errorbar(sizes, rates, yerr=[low, high], fmt="o", ms=4, capsize=3)
    for size, rate, rank in zip(sizes, rates, ranks, strict=True):
        axes.annotate(rank, (size, rate), xytext=(4, 4), textcoords="offset points")
    axes.set(xlabel="parameters in millions (labels: rank)", ylabel="WER in %")
    axes.grid(alpha=0.3)
    return figure
