"""The tables of docs/short-context.md, from benchmarks/results/short_context.json."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from baldwhisper_mlx.bench.report_text import Rows
from benchmarks.report.compression import with_interval
from benchmarks.report.tables import markdown

FILE = "short_context.json"
NOTHING = "Nothing has been measured yet; [benchmarks.md](benchmarks.md) says how."

Variants = dict[str, dict[str, Any]]
"""Name of an audio context to its results, the full context first."""


def error_rows(variants: Variants) -> Rows:
    """A row for each audio context: word errors over all clips, and text where nobody speaks."""
    head = ["", "WER, %", "difference to full", "inserted / deleted / substituted"]
    rows = [[*head, "loops", "empty", "decoded again", "sounds with text"]]
    for name, found in variants.items():
        counts = [str(found[key]) for key in ("insertions", "deletions", "substitutions")]
        sounds = found["sounds"]
        rows.append(
            [
                name,
                with_interval(found["wer"], found["wer_interval"]),
                _difference(found) if name != next(iter(variants)) else "-",
                " / ".join(counts),
                *(str(found[key]) for key in ("loops", "empty", "again")),
                f"{sounds['with_text']} of {sounds['number']}" if sounds["number"] else "-",
            ]
        )
    return rows


def folder_rows(variants: Variants) -> Rows:
    """A row for each folder of speech, a column for each audio context."""
    rows = [["speech", "clips", *variants]]
    for folder in next(iter(variants.values()))["data"]:
        cells = [found["data"][folder] for found in variants.values()]
        row = [folder, str(cells[0]["clips"]), _percent(cells[0]["wer"])]
        row += [f"{_percent(cell['wer'])} ({_difference(cell)})" for cell in cells[1:]]
        rows.append(row)
    return rows


def length_rows(variants: Variants, key: str) -> Rows:
    """A row for each bin of clip length, a column for each audio context.

    Args:
        variants: of one model.
        key: "wer", "seconds" or "encoder_seconds"; times have in brackets how many times as fast
            as the full context they are.
    """
    rows = [["clip", "clips", *variants]]
    for cells in zip(*(found["lengths"] for found in variants.values()), strict=True):
        row = [bin_name(cells[0]), str(cells[0]["clips"])]
        for place, cell in enumerate(cells):
            if key == "wer":
                row.append(_percent(cell["wer"]))
            else:
                gain = f" ({cell[key.replace('seconds', 'speed_up')]:.2f})" if place else ""
                row.append(f"{cell[key]:.2f} s{gain}")
        rows.append(row)
    return rows


def bin_name(cell: dict[str, Any]) -> str:
    """A bin of clip length.

    Example:
        >>> bin_name({"above": 25, "up_to": None})
        'over 25 s'
    """
    above, up_to = cell["above"], cell["up_to"]
    if up_to is None:
        return f"over {above} s"
    return f"{above} to {up_to} s"


def conditions(run: dict[str, Any], variants: Variants) -> str:
    """What was measured, and where."""
    settings, machine, load = run["settings"], run["machine"], run["load"]
    full = next(iter(variants.values()))
    speech = " and ".join(f"{one['clips']} clips of {name}" for name, one in full["data"].items())
    noise = ""
    if settings["noise"] is not None:
        noise = f"; with {noise_name(settings['noise'])} below the speech"
    return (
        f"{speech}, {full['words']:,} words{noise}. {decoding(settings)}, {settings['dtype']}, "
        f"language {settings['language']}; constants from "
        f"{_numbers(settings['recordings'])} of {settings['calibration']}. {machine['chip']}, "
        f"{machine['cores']} cores, MLX {machine['mlx']} on the {machine['device'].upper()}; load "
        f"average {load['least']:.1f} to {load['most']:.1f}, so only ratios of times mean "
        f"something. Measured on {run['date']} by"
    )


def decoding(settings: dict[str, Any]) -> str:
    """How text was decoded."""
    how = "with timestamps" if settings["timestamps"] else "without timestamps"
    if settings["fallback"]:
        return f"Decoding {how} and with the fallback to higher temperatures"
    return f"Greedy at temperature 0 {how} and without fallback"


def _numbers(recordings: Sequence[int]) -> str:
    if list(recordings) == [1]:
        return "one recording"
    return f"{', '.join(map(str, recordings))} recordings"


def title(name: str, settings: dict[str, Any]) -> str:
    """A model and what tells this run from others of it."""
    parts = [name, "with fallback" if settings["fallback"] else "greedy"]
    if not settings["timestamps"]:
        parts.append("without timestamps")
    if settings["dtype"] != "float32":
        parts.append(settings["dtype"])
    if settings["noise"] is not None:
        parts.append(noise_name(settings["noise"]))
    if settings["per_length"] is not None:
        parts.append("by length")
    names = {"strides": "strides", "tails": "tails", "recordings": "calibrations"}
    parts += [name for key, name in names.items() if len(settings[key]) > 1]
    return ", ".join(parts)


def noise_name(noise_at: str) -> str:
    """What was added to the speech, and how loud.

    Example:
        >>> noise_name("pink=10"), noise_name("data/noise=5")
        ('pink noise 10 dB', 'recordings of data/noise 5 dB')
    """
    kind, _, level = noise_at.rpartition("=")
    if "/" in kind:
        return f"recordings of {kind} {level} dB"
    return f"{kind if kind == 'tones' else f'{kind} noise'} {level} dB"


def run_parts(run: dict[str, Any], *, detailed: bool) -> list[str]:
    """Heading, conditions and tables of each model of a run.

    Args:
        run: of the result file.
        detailed: also errors by folder, and times by length.
    """
    parts = []
    for name, variants in run["models"].items():
        parts += [
            f"### {title(name, run['settings'])}",
            conditions(run, variants),
            f"```bash\n{run['command']}\n```",
            markdown(error_rows(variants)),
        ]
        if detailed:
            parts += [
                "Word error rate by folder of speech, in brackets the difference to full context:",
                markdown(folder_rows(variants)),
            ]
        if detailed or run["settings"]["per_length"] is not None:
            parts += [
                "Word error rate by length of the clip:",
                markdown(length_rows(variants, "wer")),
                "From samples to text, median; in brackets how many times as fast as in full "
                "context:",
                markdown(length_rows(variants, "seconds")),
                "The encoder alone, from features to the decoder's keys and values:",
                markdown(length_rows(variants, "encoder_seconds")),
            ]
    return parts


def n_clips(run: dict[str, Any]) -> int:
    """How many clips of speech a run has."""
    full = next(iter(next(iter(run["models"].values())).values()))
    return sum(folder["clips"] for folder in full["data"].values())


def short_context_part(folder: Path) -> str:
    """The results of docs/short-context.md, the run with the most clips first and in detail.

    Args:
        folder: of the result files.
    """
    path = folder / FILE
    if not path.is_file():
        return NOTHING
    runs = json.loads(path.read_text(encoding="utf-8"))["runs"]
    largest = max(runs, key=n_clips)
    ordered = [largest, *(run for run in runs if run is not largest)]
    parts = [
        "In the tables a WER has its 95 % interval in brackets, and the difference one that is "
        "paired over the clips. `decoded again` counts clips that the padded context gave up for "
        "the full one, and `sounds with text` silence, noise, hum, tones and clicks of 2 to 20 s.",
    ]
    for run in ordered:
        parts += run_parts(run, detailed=run is largest)
    return "\n\n".join(parts)


def _difference(found: dict[str, Any]) -> str:
    return with_interval(found["difference"], found["difference_interval"], "+")


def _percent(rate: float | None) -> str:
    return "-" if rate is None else f"{100 * rate:.2f} %"
