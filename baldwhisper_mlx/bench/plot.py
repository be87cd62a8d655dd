"""Plots of a result: speed-ups as bars, and error rates over size and speed.

The two comparisons have panels of their own. Word error rates are not measured here but given;
without them the last panels show speed against size alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from baldwhisper_mlx.files import atomic_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FORMATS = (".png", ".svg")
_RUNTIME = "baldwhisper-mlx"
_BAR, _LINE = "#4878a8", "#666666"
_NEAR = 0.02  # of the axes: points closer than that share a label


def draw(result: dict[str, Any], errors: Mapping[str, float] | None = None) -> Figure:
    """Draws a result.

    Args:
        result: from `run_benchmark`.
        errors: word error rates in percent by contender.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
    """
    from matplotlib.figure import Figure

    errors = errors or {}
    compared = list(result["comparisons"])
    n_bars = len(result["cases"]) if compared else 0
    figure = Figure(figsize=(11, 3.8 + bool(compared) + 0.28 * n_bars), layout="constrained")
    lower: Any = figure
    if compared:
        parts: Any = figure.subfigures(2, 1, height_ratios=[0.9 + 0.28 * n_bars, 3.6])
        upper, lower = parts
        panels = upper.subplots(1, len(compared), squeeze=False, sharey=True)[0]
        for axes, name in zip(panels, compared, strict=True):
            speed_up_bars(axes, result, name)
        panels[0].invert_yaxis()  # of all, because they share it: the first case is on top
    size_axes, speed_axes = lower.subplots(1, 2)
    # only contenders of this runtime: the other one has a panel of its own
    names = [n for n, f in result["contenders"].items() if f["runtime"].startswith(_RUNTIME)]
    sizes = {name: result["contenders"][name]["disk_bytes"] / 1e6 for name in names}
    scatter(size_axes, sizes, errors, "MB on disk")
    speeds, label = _speeds(result)
    scatter(speed_axes, {name: speeds[name] for name in names}, errors, label)
    machine = result["machine"]
    figure.suptitle(f"{machine['chip']} ({machine['device']}), MLX {machine['mlx']}", fontsize=10)
    return figure


def speed_up_bars(axes: Axes, result: dict[str, Any], name: str) -> None:
    """One bar a case: the median speed-up, with a line from quartile to quartile."""
    cases = result["cases"]
    speed_ups = [case["speed_ups"][name] for case in cases]
    middle = [each["median"] for each in speed_ups]
    spread = [
        [each["median"] - each["q1"] for each in speed_ups],
        [each["q3"] - each["median"] for each in speed_ups],
    ]
    places = range(len(cases))
    axes.barh(places, middle, xerr=spread, color=_BAR, ecolor=_LINE, capsize=2)
    axes.set_yticks(places, [case["name"] for case in cases], fontsize=8)
    axes.axvline(1, color=_LINE, lw=0.8, ls="--")
    for place, each in zip(places, speed_ups, strict=True):
        axes.annotate(
            f"{each['median']:.2f}",
            (each["q3"], place),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
        )
    axes.margins(x=0.15)
    axes.tick_params(labelsize=8)
    comparison = result["comparisons"][name]
    axes.set_title(comparison["title"], fontsize=9)
    axes.set_xlabel(f"times as fast as the {comparison['slow']}", fontsize=8)


def scatter(
    axes: Axes, values: Mapping[str, float], errors: Mapping[str, float], label: str
) -> None:
    """Word error rate over a quantity, a point a contender; without errors, bars of the quantity.

    Args:
        axes: where to draw.
        values: the quantity by contender.
        errors: percent by contender; those without are left out.
        label: of the quantity.
    """
    named = [name for name in values if name in errors]
    if not named:
        places = range(len(values))
        axes.barh(places, list(values.values()), height=0.5, color=_BAR)
        axes.set_yticks(places, list(values), fontsize=8)
        axes.invert_yaxis()
        axes.tick_params(labelsize=8)
        axes.set_xlabel(label, fontsize=8)
        return
    axes.scatter([values[name] for name in named], [errors[name] for name in named], color=_BAR)
    # from zero, with room for a name to the right of the last point
    right, top = 1.3 * max(values[n] for n in named), 1.2 * max(errors[n] for n in named)
    axes.set_xlim(0, right)
    axes.set_ylim(0, top)
    for names, place in labelled({n: (values[n], errors[n]) for n in named}, right, top):
        axes.annotate(names, place, xytext=(5, 5), textcoords="offset points", fontsize=8)
    axes.tick_params(labelsize=8)
    axes.set_xlabel(label, fontsize=8)
    axes.set_ylabel("word error rate in %", fontsize=8)
    axes.grid(alpha=0.3)


def labelled(
    points: Mapping[str, tuple[float, float]], width: float, height: float
) -> list[tuple[str, tuple[float, float]]]:
    """Labels and their places; points that nearly coincide share one label.

    Args:
        points: by name.
        width: of the axes, in the points' units.
        height: of the axes.
    """
    groups: list[tuple[list[str], tuple[float, float]]] = []
    for name, (x, y) in points.items():
        for names, (other_x, other_y) in groups:
            if abs(x - other_x) < _NEAR * width and abs(y - other_y) < _NEAR * height:
                names.append(name)
                break
        else:
            groups.append(([name], (x, y)))
    return [(", ".join(names), place) for names, place in groups]


def save(figure: Figure, path: Path) -> None:
    """Writes a figure as .png or .svg, whole or not at all.

    Raises:
        ValueError: another suffix.
        OSError: it cannot be written.
    """
    if path.suffix not in FORMATS:
        raise ValueError(f"{path}: a plot has to end in {' or '.join(FORMATS)}")
    # without a date, the same result gives the same file
    metadata = {"Date": None} if path.suffix == ".svg" else {}
    with atomic_file(path) as temporary:
        figure.savefig(temporary, format=path.suffix[1:], dpi=120, metadata=metadata)


def _speeds(result: dict[str, Any]) -> tuple[dict[str, float], str]:
    """A speed by contender, from the first case that has tokens, or audio, per second."""
    case = next((c for c in result["cases"] if c["unit"] == "tokens/s"), result["cases"][0])
    medians = {name: r["value"]["median"] for name, r in case["results"].items()}
    if case["unit"] == "tokens/s":
        return medians, f"tokens per second ({case['name']})"
    times = {name: case["amount"] / value for name, value in medians.items()}
    return times, f"times real time ({case['name']})"
