"""The plots of the report: one for each kind of result of a machine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from baldwhisper_mlx.bench import plot
from benchmarks.peers.compare import TEACHER

_SMALL = 8
_KINDS = ("product", "attention", "softmax", "gelu", "norm", "rules", "other", "unexplained")


def draw(kind: str, results: dict[str, dict[str, Any]]) -> Figure:
    """The picture of one kind.

    Args:
        kind: of result.
        results: of one machine, by kind: the speeds borrow word error rates of the peers.
    """
    if kind == "bench":
        return plot.draw(results[kind], error_rates(results.get("peers")))
    if kind == "paper-form":
        return plot.draw(results[kind], {})
    drawers: dict[str, Callable[[dict[str, Any]], Figure]] = {
        "peers": draw_peers,
        "scaling": draw_scaling,
        "profile": draw_profile,
    }
    return drawers[kind](results[kind])


def error_rates(peers: dict[str, Any] | None) -> dict[str, float]:
    """Word error rates in percent of teacher and student, where the peers have them."""
    names = {"teacher": TEACHER, "student": f"{TEACHER}, student"}
    found = {} if peers is None else measured(peers)
    return {
        name: 100 * found[peer]["wer"]
        for name, peer in names.items()
        if peer in found and found[peer]["wer"] is not None
    }


def measured(result: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The programs that were measured."""
    return {n: found for n, found in result["peers"].items() if found["status"] == "measured"}


def draw_peers(result: dict[str, Any]) -> Figure:
    """Real-time factors as bars, and word errors over speed, by the number of the bar."""
    found = measured(result)
    figure = Figure(figsize=(11, 1.6 + 0.36 * max(6, len(found))), layout="constrained")
    bars, errors = figure.subplots(1, 2)
    places, speeds = range(len(found)), [1 / each["rtf"] for each in found.values()]
    colours = ["#4878a8" if name.startswith(TEACHER) else "#a8a8a8" for name in found]
    bars.barh(places, speeds, color=colours)
    labels = [f"{name}  {number}" for number, name in enumerate(found, start=1)]
    bars.set_yticks(places, labels, fontsize=_SMALL)
    bars.invert_yaxis()
    for place, speed in zip(places, speeds, strict=True):
        bars.annotate(f" {speed:.1f}", (speed, place), va="center", fontsize=_SMALL)
    bars.margins(x=0.12)
    _label(bars, "seconds of audio per second", "")
    # the same weights make the same errors, so that names would overlap
    numbered = {str(number): each for number, each in enumerate(found.values(), start=1)}
    rates = {n: 100 * each["wer"] for n, each in numbered.items() if each["wer"] is not None}
    speed_of = {n: 1 / each["rtf"] for n, each in numbered.items()}
    plot.scatter(errors, speed_of, rates, "seconds of audio per second")
    return figure


def draw_scaling(result: dict[str, Any]) -> Figure:
    """Time and memory over length, speed and memory over batch; a line a model."""
    figure = Figure(figsize=(11, 7), layout="constrained")
    panels = figure.subplots(2, 2)
    (time, memory), (speed, batch_memory) = panels
    for name, found in result["models"].items():
        points, batches = found["lengths"], found["batches"]
        lengths, sizes = [p["audio_seconds"] for p in points], [p["batch"] for p in batches]
        (drawn,) = time.plot(lengths, [p["seconds"] for p in points], "o-", ms=4, label=name)
        speed.plot(sizes, [p["tokens"] / p["seconds"] for p in batches], "o-", ms=4, label=name)
        for axes, x, these in ((memory, lengths, points), (batch_memory, sizes, batches)):
            for what, line in (("mlx", "o-"), ("process", "o:")):
                peaks = [p[f"peak_{what}_bytes"] / 1e6 for p in these]
                label = f"{name}, {'MLX' if what == 'mlx' else what}"
                axes.plot(x, peaks, line, ms=4, color=drawn.get_color(), label=label)
    time.set(yscale="log")
    for axes in (time, memory):
        _ticks(axes, {p["audio_seconds"] for m in result["models"].values() for p in m["lengths"]})
    for axes in (speed, batch_memory):
        _ticks(axes, {p["batch"] for m in result["models"].values() for p in m["batches"]})
    for axes in (memory, speed, batch_memory):
        axes.set_ylim(0, 1.08 * axes.dataLim.y1)
    _label(time, "seconds of audio", "seconds to transcribe")
    _label(memory, "seconds of audio", "peak memory in MB")
    _label(speed, "clips at once", "tokens per second")
    _label(batch_memory, "clips at once", "peak memory in MB")
    for axes in panels.flat:
        axes.legend(fontsize=_SMALL)
        axes.grid(alpha=0.3)
    return figure


def _ticks(axes: Axes, places: set[float]) -> None:
    """A logarithmic axis with a tick at every measured value and no other."""
    axes.set_xscale("log")
    axes.set_xticks(sorted(places), [f"{place:g}" for place in sorted(places)])
    axes.set_xticks([], minor=True)


def draw_profile(result: dict[str, Any]) -> Figure:
    """Shares of the kinds of work, stacked, for encoding and for a step of every model."""
    rows = [(f"{n}, {what}", m[what]) for n, m in result["models"].items() for what in _WHATS]
    figure = Figure(figsize=(11, 1.6 + 0.5 * len(rows)), layout="constrained")
    axes = figure.subplots()
    starts = [0.0] * len(rows)
    for number, kind in enumerate(_KINDS):
        shares = [100 * kind_shares(profile)[kind] for _, profile in rows]
        axes.barh(range(len(rows)), shares, left=starts, label=kind, color=f"C{number}")
        starts = [start + share for start, share in zip(starts, shares, strict=True)]
    axes.set_yticks(
        range(len(rows)), [f"{n}: {p['whole_ms']:.1f} ms" for n, p in rows], fontsize=_SMALL
    )
    axes.invert_yaxis()
    axes.legend(ncols=len(_KINDS), fontsize=_SMALL, loc="lower center", bbox_to_anchor=(0.5, 1))
    _label(axes, "% of the time", "")
    return figure


_WHATS = ("encoder", "step")


def kind_shares(profile: dict[str, Any]) -> dict[str, float]:
    """Share of each kind of work in the whole, 0 to 1; pieces inside a part do not count."""
    shares = dict.fromkeys(_KINDS, 0.0)
    for part in profile["parts"]:
        if not part["inside"]:
            shares[part["kind"]] += part["ms"] / profile["whole_ms"]
    shares["unexplained"] = max(0.0, 1 - sum(shares.values()))
    return shares


def _label(axes: Axes, x: str, y: str) -> None:
    axes.set_xlabel(x, fontsize=_SMALL)
    axes.set_ylabel(y, fontsize=_SMALL)
    axes.tick_params(labelsize=_SMALL, which="both")
