"""The plot of README.md: word errors against time and size, this runtime beside other programs.

From peers-CHIP.json of one machine, an Apple one if it has been measured. The values are also in
the picture's metadata, so that a test can compare the committed picture with the result file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from baldwhisper_mlx.files import atomic_file
from benchmarks.peers.compare import TEACHER
from benchmarks.report.plots import measured
from benchmarks.report.tables import machine_line

PICTURE = Path("benchmarks/results/overview.png")
SECONDS = 10
"""Length of the clips on the horizontal axis; one of `benchmarks.peers.figures.LENGTHS`."""
_OURS, _OTHERS, _LINES = "#2f6fb0", "#808080", "#c4c4c4"
_AREA = 2.4
"""Points squared of a bubble for each MB."""


@dataclass(frozen=True)
class Point:
    """A program with its weights, as one bubble.

    `seconds` are those for a clip of `SECONDS`; `wer` and its interval are in percent. Without an
    interval in the result, both bounds are the rate itself.
    """

    name: str
    seconds: float
    wer: float
    interval: tuple[float, float]
    megabytes: float

    def __str__(self) -> str:
        return f"{self.seconds:.2f} s, {self.wer:.1f} %, {self.megabytes:.0f} MB"


def machine_to_show(results: Mapping[str, Mapping[str, dict[str, Any]]]) -> str | None:
    """The machine of the plot: an Apple one if other programs were measured there, or the first.

    Args:
        results: machine to kind to result.
    """
    chips = [chip for chip, kinds in results.items() if "peers" in kinds]
    return min(chips, key=lambda chip: not chip.startswith("apple"), default=None)


def peers_to_show(results: Mapping[str, Mapping[str, dict[str, Any]]]) -> dict[str, Any] | None:
    """The comparison of programs on that machine."""
    chip = machine_to_show(results)
    return None if chip is None else results[chip]["peers"]


def points(result: Mapping[str, Any]) -> list[Point]:
    """The programs whose errors and times were measured, the fastest first."""
    found = []
    for name, program in measured(dict(result)).items():
        seconds = program.get("seconds_by_length", {}).get(str(SECONDS))
        if program["wer"] is None or seconds is None:
            continue
        wer = 100 * program["wer"]
        low, high = (100 * bound for bound in program["wer_interval"] or [program["wer"]] * 2)
        found.append(
            Point(
                name=name,
                seconds=seconds,
                wer=round(wer, 2),
                interval=(round(low, 2), round(high, 2)),
                megabytes=round(program["model_bytes"] / 1e6, 1),
            )
        )
    return sorted(found, key=lambda point: point.seconds)


def description(found: list[Point]) -> str:
    """The points as JSON, as they are in the metadata of the picture."""
    rows = [[p.name, p.seconds, p.wer, *p.interval, p.megabytes] for p in found]
    return json.dumps(rows)


def alternative_text(found: list[Point]) -> str:
    """What the plot shows, for readers who do not see it."""
    values = "; ".join(f"{point.name}: {point}" for point in found)
    return (
        f"Word error rate against seconds to transcribe a clip of {SECONDS} s, with the size of "
        f"the model as area. {values}."
    )


def draw_overview(found: list[Point]) -> Figure:
    """Numbered bubbles, and a key with the values: labels at the bubbles would overlap.

    The background is opaque white, so the plot reads the same on light and dark pages.
    """
    figure = Figure(figsize=(9.2, 3.9), layout="constrained", facecolor="white")
    axes, key = figure.subplots(1, 2, width_ratios=[1, 0.82])
    for number, point in enumerate(found, start=1):
        colour = _OURS if point.name.startswith(TEACHER) else _OTHERS
        axes.plot([point.seconds] * 2, point.interval, color=_LINES, lw=1, zorder=1)
        area = _AREA * point.megabytes
        axes.scatter(
            point.seconds, point.wer, s=area, color=colour, alpha=0.75, edgecolor="white", zorder=2
        )
        axes.annotate(
            str(number), (point.seconds, point.wer), color="white", fontsize=8, weight="bold",
            ha="center", va="center_baseline", zorder=3,
        )  # fmt: skip
    low, high = found[0].seconds, found[-1].seconds
    axes.set_xscale("log")
    axes.set_xlim(low / 1.25, high * 1.3)
    ticks = [
        tick for tick in (0.1, 0.2, 0.5, 1, 1.5, 2, 3, 5, 10) if low / 1.25 < tick < high * 1.3
    ]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.set_xticks([], minor=True)
    # logarithmic, because a clip in a repetition loop makes one rate several times the others
    top = 1.1 * max(point.interval[1] for point in found)
    bottom = max(0.9 * min(point.interval[0] for point in found), top / 100)
    axes.set_yscale("log")
    axes.set_ylim(bottom, top)
    rates = [rate for rate in (0.5, 1, 2, 3, 5, 10, 20, 30, 50) if bottom < rate < top]
    axes.set_yticks(rates, [f"{rate:g}" for rate in rates])
    axes.set_yticks([], minor=True)
    axes.set_xlabel(f"seconds to transcribe a clip of {SECONDS} s; area: size on disk")
    axes.set_ylabel("word error rate, %")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    _draw_key(key, found)
    return figure


def _draw_key(axes: Any, found: list[Point]) -> None:
    """A line a program: number, name, seconds, word error rate, size."""
    axes.axis("off")
    axes.set(xlim=(0, 1), ylim=(len(found) + 0.5, -1))
    columns = ((0.76, "s"), (0.9, "WER, %"), (1.0, "MB"))
    for x, title in columns:
        axes.text(x, -0.4, title, fontsize=9, ha="right", color="#555555")
    for row, point in enumerate(found):
        is_ours = point.name.startswith(TEACHER)
        look = {"fontsize": 9, "color": _OURS if is_ours else "#333333"}
        look["weight"] = "bold" if is_ours else "normal"
        axes.text(0.0, row + 0.6, f"{row + 1}  {point.name}", **look)
        values = (f"{point.seconds:.2f}", f"{point.wer:.1f}", f"{point.megabytes:.0f}")
        for (x, _), value in zip(columns, values, strict=True):
            axes.text(x, row + 0.6, value, ha="right", **look)


def save_overview(found: list[Point], path: Path) -> None:
    """Draws and writes the picture, whole or not at all, with its values in the metadata."""
    figure, metadata = draw_overview(found), {"Description": description(found)}
    with atomic_file(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120, metadata=metadata)


def overview_part(result: Mapping[str, Any] | None) -> str:
    """The plot and what exactly it shows, for README.md."""
    if result is None:
        return "Other programs have not been measured yet."
    found = points(result)
    caption = (
        f"Measured on {machine_line(result['machine'])}: word errors of {result['clips']} clips of "
        f"{result['data']} ({result['audio_seconds']:.0f} s), greedy; median time from the decoded "
        f"audio of a clip of {SECONDS} s in memory to its text, with the model loaded. The area of "
        f"a bubble is the size on disk; grey lines are 95 % intervals. `{TEACHER}, student` is the "
        "bundled model, `tiny.en` OpenAI's whisper-tiny.en; all others are OpenAI's whisper-base."
    )
    return f"![{alternative_text(found)}]({PICTURE})\n\n{caption}"
