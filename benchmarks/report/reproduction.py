"""The tables of docs/reproduction.md: the paper's claims on another language.

From reproduction-NAME.json in benchmarks/results; a part whose file is missing says so. The page
has the command that wrote each file.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from baldwhisper_mlx.bench.report_text import Rows
from benchmarks.report.compression import NOT_MEASURED, with_interval
from benchmarks.report.tables import markdown

PREFIX = "reproduction-"
STUDENTS = {
    "merged": "merged",
    "sheared": "merged and factorized",
    "joint": "merged and factorized, joint start",
    "augmented": "layers 0, 3, 5, rank 80, dense rows, augmented speech",
    "four": "layers 0, 2, 3, 5, rank 128, layers compared, augmented speech",
}
"""Files of a student's errors and speed, and what it is called; all have one teacher."""
KEEPING = {
    "base": "whisper-base",
    "tuned": "fine-tuned",
    "replay": "fine-tuned with replay",
    "again": "fine-tuned again, clips of both languages",
    "average": "average of the last two",
    "mixed": "average of the last two and a tenth of whisper-base",
}
"""Models that may have kept French: part of the names of their files, and what they are called."""
TOGETHER = {
    "first": "French in every batch",
    "turns": "then clips of both, a token wherever the language changes",
    "window": "then clips of both, one language token",
    "second": "the recipe: then clips of both, one language token, more steps",
    "student": "student: layers 0, 3, 5, rank 128",
}
"""Models of recipes/mboshi-two-languages.toml, as in `KEEPING`."""
KEPT_SETS = {
    "mboshi": "Mboshi: WER, %",
    "french": "French: WER, %",
    "switched": "both in a clip: WER, %",
}
"""Speech that they are evaluated on, by the end of the files' names, to the title of its column."""
CONTEXTS = {
    "tuned": "whisper-base, fine-tuned on Mboshi with the dynamic context",
    "base": "whisper-base as it is, English",
}
"""File of an evaluation with both contexts to what was evaluated."""
RATE = "paper, batch 10"
"""Case of `baldwhisper bench` that is the paper's protocol."""

Found = dict[str, dict[str, Any]]
"""Contents of the result files, by what follows the prefix."""


def read(folder: Path) -> Found:
    """All result files of the reproduction."""
    return {
        path.stem.removeprefix(PREFIX): json.loads(path.read_text(encoding="utf-8"))
        for path in sorted(folder.glob(f"{PREFIX}*.json"))
    }


def paper_rows(found: Found) -> Rows:
    """A row for each model: size, speed, errors, and WER relative to the teacher's."""
    title = ["", "parameters", "tokens/s", "speed-up", "WER, %", "CER, %", "retention"]
    rows = [title]
    for student in measured_students(found):
        name = STUDENTS[student]
        errors, speed = found[student], found[f"speed-{student}"]
        (case,) = (case for case in speed["cases"] if case["name"] == RATE)
        if len(rows) == 1:
            rows.append(
                ["fine-tuned", *_size_and_speed(speed, case, "teacher"), "1",
                 *_errors(errors["models"]["baseline"]), "1"]
            )  # fmt: skip
        up, kept = case["speed_ups"]["compression"], errors["comparison"]["wer"]["retention"]
        rows.append(
            [name, *_size_and_speed(speed, case, "student"),
             f"{up['median']:.2f} [{up['q1']:.2f}, {up['q3']:.2f}]",
             *_errors(errors["models"]["model"]),
             f"{kept['value']:.3f} [{kept['interval'][0]:.3f}, {kept['interval'][1]:.3f}]"]
        )  # fmt: skip
    return rows


def measured_students(found: Found) -> list[str]:
    """Students whose errors and speed have been measured."""
    return [name for name in STUDENTS if {name, f"speed-{name}"} <= found.keys()]


def _size_and_speed(speed: dict[str, Any], case: dict[str, Any], role: str) -> list[str]:
    parameters = speed["contenders"][role]["parameters"]
    return [f"{parameters / 1e6:.1f} M", f"{case['results'][role]['value']['median']:.1f}"]


def _errors(model: dict[str, Any]) -> list[str]:
    return [with_interval(model[unit]["value"], model[unit]["interval"]) for unit in ("wer", "cer")]


def variant_rows(result: dict[str, Any], group: str) -> Rows:
    """A row for each variant of a group; differences are from the first, on the same windows."""
    members = {name: row for name, row in result["variants"].items() if row["group"] == group}
    table = [["", "parameters", "steps", "WER, %", "difference"]]
    for name, row in members.items():
        table.append(
            [name, f"{row['parameters'] / 1e6:.1f} M", str(row["steps"]),
             with_interval(row["wer"], row["wer_interval"]), _difference(row, members)]
        )  # fmt: skip
    return table


def lever_rows(levers: dict[str, Any]) -> Rows:
    """A row for each lever, over all seeds; differences are from the first, on the same windows."""
    table = [["", "parameters", "WER, %", "of each seed", "difference"]]
    for name, row in levers.items():
        table.append(
            [name, f"{row['parameters'] / 1e6:.1f} M",
             with_interval(row["wer"], row["wer_interval"]),
             ", ".join(f"{100 * rate:.1f}" for rate in row["wer_of_seeds"]),
             _difference(row, levers)]
        )  # fmt: skip
    return table


def _difference(row: dict[str, Any], rows: dict[str, dict[str, Any]]) -> str:
    """From the WER of the first row; a dash in that row itself."""
    first = next(iter(rows.values()))
    if row is first:
        return "-"
    return with_interval(row["wer"] - first["wer"], row["difference_interval"], "+")


def search_rows(trials: Sequence[dict[str, Any]]) -> Rows:
    """Trials by the share of the lower layer, on which alone a merged layer depends."""
    bounds = [0.0, 0.1, 0.25, 0.5, 0.75, 1.0]
    table = [["alpha / (alpha + beta)", "trials", "best WER, %", "median WER, %"]]
    for low, high in itertools.pairwise(bounds):
        is_last = high == bounds[-1]
        rates = sorted(
            100 * trial["wer"]
            for trial in trials
            if low <= lower_share(trial) < high or (is_last and lower_share(trial) == high)
        )
        if rates:
            middle = (rates[(len(rates) - 1) // 2] + rates[len(rates) // 2]) / 2
            table.append(
                [f"{low:g} to {high:g}", str(len(rates)), f"{rates[0]:.1f}", f"{middle:.1f}"]
            )
    return table


def lower_share(trial: dict[str, Any]) -> float:
    """Weight of the lower layer of a merged pair, of 1."""
    share: float = trial["alpha"] / (trial["alpha"] + trial["beta"])
    return share


def context_rows(found: Found) -> Rows:
    """A row for each model: errors and real-time factor with either context."""
    table = [["", "clips", "full: WER, %", "dynamic: WER, %", "full: RTF", "dynamic: RTF"]]
    for name, report in found.items():
        models, data = report["models"], report["data"]
        dynamic, full = models["model"], models["baseline"]
        table.append(
            [CONTEXTS.get(name.removeprefix("context-"), name), str(data["utterances"]),
             *(with_interval(m["wer"]["value"], m["wer"]["interval"]) for m in (full, dynamic)),
             *(f"{m['rtf']:.3f}" for m in (full, dynamic))]
        )  # fmt: skip
    return table


def language_rows(result: dict[str, Any]) -> Rows:
    """A row for each model and language: ranks of the tokens of sentences in that language."""
    table = [["", "sentences in", "tokens", "median rank", "in the first 1 %", "rank 0"]]
    for name, model in result["models"].items():
        for language, row in model["languages"].items():
            table.append(
                [name, language, str(row["tokens"]), f"{row['median_rank']:.0f}",
                 *(f"{100 * row[share]:.0f} %" for share in ("within_reach", "likeliest"))]
            )  # fmt: skip
    return table


def keeping_rows(found: Found, models: Mapping[str, str], ranks: str) -> Rows:
    """A row for each model: errors in both languages, and the ranks of French tokens.

    Args:
        found: the result files.
        models: `KEEPING` or `TOGETHER`.
        ranks: name of the file of their ranks.
    """
    rows = [["", *KEPT_SETS.values(), "left out of these, %", "median rank of French"]]
    ranked = found[ranks]["models"]
    for name, title in models.items():
        reports = [found.get(f"keeping-{name}-{speech}") for speech in KEPT_SETS]
        rates = [report["models"]["model"]["wer"] if report else None for report in reports]
        cells = [with_interval(r["value"], r["interval"]) if r else "-" for r in rates]
        both = rates[-1]
        cells.append(f"{100 * both['deletions'] / both['total']:.0f}" if both else "-")
        french = ranked[title]["languages"]["French"] if title in ranked else None
        rows.append([title, *cells, f"{french['median_rank']:.0f}" if french else "-"])
    return rows


def reproduction_parts(folder: Path) -> dict[str, str]:
    """The parts of docs/reproduction.md by the names of their markers.

    Args:
        folder: of the result files.
    """
    found = read(folder)
    variants, trials = found.get("variants"), found.get("search")
    languages = found.get("languages")
    contexts = {name: row for name, row in found.items() if name.startswith("context-")}
    parts = {
        "paper": markdown(paper_rows(found)) if measured_students(found) else NOT_MEASURED,
        "search": markdown(search_rows(trials["trials"])) if trials else NOT_MEASURED,
        "languages": markdown(language_rows(languages)) if languages else NOT_MEASURED,
        "context": markdown(context_rows(contexts)) if contexts else NOT_MEASURED,
    }
    kept = {"keeping": (KEEPING, "keeping-languages"), "together": (TOGETHER, "keeping-together")}
    for name, (models, ranks) in kept.items():
        measured = ranks in found
        parts[name] = markdown(keeping_rows(found, models, ranks)) if measured else NOT_MEASURED
    for name in ("levers", "teacher-levers"):
        levers = found.get(name)
        parts[name] = markdown(lever_rows(levers["levers"])) if levers else NOT_MEASURED
    for group in ("layers", "vocabulary"):
        parts[group] = NOT_MEASURED
        if variants and any(row["group"] == group for row in variants["variants"].values()):
            parts[group] = markdown(variant_rows(variants, group))
    return parts
