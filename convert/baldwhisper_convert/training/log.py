"""The training log: a JSON line a step, a plot of the curves, and experiment trackers."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from baldwhisper_convert.training.settings import TrainingSettings
from baldwhisper_convert.training.trackers import AUTO, Trackers
from baldwhisper_mlx.files import atomic_file
from baldwhisper_mlx.output.json_lines import read_json_lines, write_json_lines

LOG_FILE, CURVES_FILE = "log.jsonl", "curves.png"


class TrainingLog:
    """Appends to a run's log file.

    Args:
        folder: of the run.
        step: the run continues after it; later lines, left by an interrupted run, are removed.
        settings: of the run: its trackers, and what they show; by default TensorBoard is used if
            it is installed.
        enabled: False in all processes but the main one, which alone writes.
    """

    def __init__(
        self,
        folder: Path,
        step: int,
        settings: TrainingSettings | None = None,
        *,
        enabled: bool = True,
    ) -> None:
        self.folder, self.enabled = folder, enabled
        if not enabled:
            return
        path = folder / LOG_FILE
        kept = [row for row in read_log(path) if row["step"] <= step]
        # Atomic, so that an interruption right here does not lose the log of the run so far.
        write_json_lines(path, kept)
        self._file = path.open("a", encoding="utf-8")
        names = settings.trackers if settings else (AUTO,)
        shown = dataclasses.asdict(settings) if settings else {}
        self._trackers = Trackers(names, folder, step, shown)

    def write(self, *, step: int, **values: Any) -> None:
        """Writes one line; trackers show a nested mapping as one group of curves."""
        if not self.enabled:
            return
        self._file.write(json.dumps({"step": step} | _rounded(values)) + "\n")
        self._file.flush()
        self._trackers.log(step, values)

    def release(self) -> None:
        """Closes the files and trackers, also those of an interrupted run; may be called again."""
        if self.enabled and not self._file.closed:
            self._file.close()
            self._trackers.close()

    def close(self) -> None:
        """Closes the files and draws the curves."""
        self.release()
        if self.enabled:
            plot_curves(self.folder / LOG_FILE, self.folder / CURVES_FILE)


def shown(results: Mapping[str, float]) -> dict[str, str]:
    """The results of an evaluation that a progress bar shows: WER in percent and KL."""
    names = {"wer": "dev WER", "kl": "dev KL"}
    return {
        title: f"{100 * results[name]:.1f} %" if name == "wer" else f"{results[name]:.3f}"
        for name, title in names.items()
        if name in results
    }


def read_log(path: Path) -> list[dict[str, Any]]:
    """Parses the lines of a log; an incomplete last line is left out.

    Raises:
        ValueError: any other line is damaged; the message says what to delete.
    """
    try:
        rows = read_json_lines(path)
        for number, row in enumerate(rows, start=1):
            if not isinstance(row, dict) or not isinstance(row.get("step"), int):
                raise ValueError(f"{path}: line {number} is damaged (it names no step)")
    except ValueError as error:
        raise ValueError(
            f"{error}; delete the line, or the file to resume without the log so far"
        ) from None
    return rows


def plot_curves(log: Path, picture: Path) -> None:
    """Draws losses and development results over steps; does nothing without matplotlib.

    Args:
        log: from `TrainingLog`.
        picture: the image file to write.
    """
    if not importlib.util.find_spec("matplotlib"):
        return
    from matplotlib.figure import Figure

    rows = read_log(log)
    steps = [row for row in rows if "loss" in row]
    evaluations = [row for row in rows if "dev" in row]
    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    shares = {"accuracy", "agreement", "replay_agreement"}
    hidden = {"step", "epoch", "seconds", "lr", "norm"} | shares
    for name in sorted({key for row in steps for key in row} - hidden):
        left.plot([r["step"] for r in steps], [r.get(name) for r in steps], label=name, lw=0.8)
    left.set(xlabel="step", ylabel="loss", yscale="log", title="training")
    # Word errors are percent and the losses are nats: each has an axis of its own.
    errors = right.twinx()
    for name in sorted({key for row in evaluations for key in row["dev"]} - {"score"}):
        values = [row["dev"].get(name) for row in evaluations]
        places = [row["step"] for row in evaluations]
        if name == "wer" or name.startswith("wer_"):  # of all languages, and of each
            percent = [None if value is None else 100 * value for value in values]
            language = name.removeprefix("wer").replace("_", " of ")
            style = "s:" if language else "ks--"
            errors.plot(places, percent, style, label=f"WER{language} in %", ms=3)
        else:
            right.plot(places, values, "o-", label=name, ms=3)
    right.set(xlabel="step", title="development")
    errors.set(ylabel="WER in %")
    if errors.lines:
        errors.legend(loc="upper right")
    else:
        errors.set_visible(False)
    for axes in (left, right):
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend()
    with atomic_file(picture) as temporary:
        figure.savefig(temporary, format="png", dpi=120)


def _rounded(values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: _rounded(value)
        if isinstance(value, Mapping)
        else float(f"{value:.6g}")
        if isinstance(value, float)
        else value
        for name, value in values.items()
    }
