"""A report as text for a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tabulate import tabulate

from baldwhisper_mlx.evaluation.utterances import MODEL, Utterance
from baldwhisper_mlx.evaluation.word_diff import view

MOST_SPEAKERS = 20

Report = dict[str, Any]


def render(report: Report) -> str:
    """All figures of a report but those of more speakers than fit on a screen.

    Args:
        report: from `make_report`.
    """
    parts = [_header(report), _models(report)]
    if report["comparison"] is not None:
        parts.append(_comparison(report["comparison"]))
    roles = list(report["models"])
    parts.append(_groups("by length", report["by_length"], roles))
    speakers = report["by_speaker"]
    if len(speakers) > 1:
        # The speakers with the highest error rates first: they show where the model fails.
        shown = sorted(speakers, key=lambda row: -(row[MODEL]["wer"]["value"] or 0.0))
        title = "by speaker"
        if len(speakers) > MOST_SPEAKERS:
            title = f"by speaker, the {MOST_SPEAKERS} worst of {len(speakers)}"
        parts.append(_groups(title, shown[:MOST_SPEAKERS], roles))
    return "\n\n".join(parts) + "\n"


def render_errors(utterances: Sequence[Utterance]) -> str:
    """Utterances with the alignment of each transcript, the model's and the baseline's."""
    blocks = []
    for one in utterances:
        speaker = f", speaker {one.speaker}" if one.speaker else ""
        lines = [f"{one.file} ({one.duration:.1f} s{speaker})"]
        for role, scored in one.by.items():
            words = scored.score.words
            remarks = [f"{words.errors} of {words.total} words wrong"]
            remarks += ["repetition loop"] if scored.score.is_loop else []
            remarks += ["empty output"] if scored.score.is_empty else []
            lines.append(f"{role}: {', '.join(remarks)}")
            lines.append(view(scored.score.alignment))
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks) + "\n"


def _header(report: Report) -> str:
    settings, data = report["settings"], report["data"]
    lines = {
        role: f"{run['model']} ({run['fingerprint']}), {run['options']['dtype']} on "
        f"{run['options']['device']}"
        for role, run in report["models"].items()
    }
    speakers = f", {_number(data['speakers'], 'speaker')}" if data["speakers"] else ""
    lines["data"] = (
        f"{settings['data']}: {_number(data['utterances'], 'utterance')}{speakers}, "
        f"{data['seconds'] / 3600:.2f} h, {_number(data['words'], 'word')}"
    )
    if data["empty_references"]:
        lines["data"] += f"; {data['empty_references']} without speech"
    if data["skipped"]:
        lines["skipped"] = f"{_number(len(data['skipped']), 'row')} that cannot be used"
    lines["normalizer"] = settings["normalizer"]
    lines["intervals"] = (
        f"{100 * report['bootstrap']['level']:.0f} %, bootstrap over utterances, "
        f"{report['bootstrap']['samples']} draws"
    )
    width = max(map(len, lines))
    return "\n".join(f"{label:<{width}}  {text}" for label, text in lines.items())


def _number(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def _models(report: Report) -> str:
    head = ["", "WER %", "", "sub", "del", "ins", "CER %", "", "loops", "empty", "RTF"]
    rows = [head]
    for role, rates in report["models"].items():
        wer, cer = rates["wer"], rates["cer"]
        rows.append(
            [
                role,
                *_percent(wer),
                *(str(wer[kind]) for kind in ("substitutions", "deletions", "insertions")),
                *_percent(cer),
                str(rates["repetition_loops"]),
                str(rates["empty_outputs"]),
                "-" if rates["rtf"] is None else f"{rates['rtf']:.3f}",
            ]
        )
    return _columns(rows)


def _comparison(comparison: Report) -> str:
    rows = [["model and baseline", "words", "", "characters", ""]]
    for what, label, show in (
        ("retention", "relative error rate (baseline / model)", _plain),
        ("accuracy_ratio", "accuracy ratio (model / baseline)", _plain),
        ("difference", "difference, percentage points", _percent),
    ):
        cells = show(comparison["wer"][what]), show(comparison["cer"][what])
        rows.append([label, *cells[0], *cells[1]])
    return _columns(rows)


def _groups(title: str, groups: Sequence[Report], roles: Sequence[str]) -> str:
    head = [title, "utterances", "words"]
    for role in roles:
        head += [f"{role} WER %", "", "CER %"]
    rows = [head]
    for group in groups:
        row = [group["group"], str(group["utterances"]), str(group["words"])]
        for role in roles:
            row += [*_percent(group[role]["wer"]), _percent(group[role]["cer"])[0]]
        rows.append(row)
    return _columns(rows)


def _percent(estimate: Report) -> tuple[str, str]:
    """Value and interval in percent, two decimals."""
    return _texts(estimate, 100.0, 2)


def _plain(estimate: Report) -> tuple[str, str]:
    return _texts(estimate, 1.0, 3)


def _texts(estimate: Report, factor: float, digits: int) -> tuple[str, str]:
    value, low, high = (
        "-" if number is None else f"{factor * number:.{digits}f}"
        for number in (estimate["value"], *estimate["interval"])
    )
    return value, f"[{low}, {high}]"


def _columns(rows: Sequence[Sequence[str]]) -> str:
    """Aligned columns: the first to the left, the others to the right."""
    sides = ["left", *["right"] * (len(rows[0]) - 1)]
    text: str = tabulate(rows, tablefmt="plain", colalign=sides, disable_numparse=True)
    return text
