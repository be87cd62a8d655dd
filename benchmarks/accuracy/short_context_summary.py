"""What short_context.py reports of its measurements: errors, times, and words without speech.

A measurement is a row: `model`, `variant`, `item` (clip or sound), `data` (folder; None for a
sound without speech), `reference`, `text`, `duration`, `seconds`, `encoder_seconds`, `again`
(windows that were decoded again in full context) and `load`.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import Any

import numpy as np

from baldwhisper_mlx.evaluation import bootstrap
from baldwhisper_mlx.evaluation.bootstrap import Bootstrap
from baldwhisper_mlx.evaluation.normalizers import Normalizer
from baldwhisper_mlx.evaluation.scoring import Score, has_loop, score
from benchmarks.accuracy.word_errors import interval

Row = dict[str, Any]
DIGITS = 4


def length_bin(seconds: float, edges: Sequence[int]) -> tuple[int, int | None]:
    """The bin (above, up to) that a length falls in; None for no upper end.

    Example:
        >>> length_bin(5.0, [1, 2, 5]), length_bin(5.1, [1, 2, 5])
        ((2, 5), (5, None))
    """
    place = bisect_left(edges, seconds)
    return edges[place - 1] if place else 0, edges[place] if place < len(edges) else None


def summarize(
    rows: Sequence[Row], baseline: str, edges: Sequence[int], normalize: Normalizer
) -> dict[str, dict[str, Any]]:
    """The results of one model, by variant.

    Args:
        rows: of all variants, each with the same items in the same order.
        baseline: the variant that others are compared with.
        edges: upper ends of the bins of clip length, in seconds, ascending.
        normalize: applied to references and transcripts.

    Raises:
        ValueError: the variants have not measured the same items.
    """
    names = list(dict.fromkeys(row["variant"] for row in rows))
    of = {name: [row for row in rows if row["variant"] == name] for name in names}
    items = [row["item"] for row in of[baseline]]
    if any([row["item"] for row in of[name]] != items for name in names):
        raise ValueError("the variants have not measured the same clips")
    spoken = {name: [row for row in of[name] if row["data"] is not None] for name in names}
    scores = {
        name: [score(row["reference"], row["text"], normalize) for row in spoken[name]]
        for name in names
    }
    errors = np.array([[one.words.errors for one in scores[name]] for name in names])
    words = np.array([one.words.total for one in scores[baseline]])
    drawn = Bootstrap(np.column_stack([words, errors.T]))
    base = 1 + names.index(baseline)
    found = {}
    for column, name in enumerate(names, start=1):
        rate = drawn.estimate(bootstrap.error_rate, column, 0).to_dict(DIGITS)
        change = drawn.estimate(bootstrap.difference, base, column, 0)
        found[name] = {
            "wer": rate["value"],
            "wer_interval": rate["interval"],
            "difference": change.to_dict(DIGITS)["value"],
            "difference_interval": interval(change),
            **edits(scores[name]),
            "again": sum(row["again"] > 0 for row in spoken[name]),
            "data": by_folder(spoken[name], scores[name], scores[baseline]),
            "lengths": by_length(spoken[name], spoken[baseline], scores[name], edges),
            "sounds": without_speech([row for row in of[name] if row["data"] is None]),
        }
    return found


def edits(scores: Sequence[Score]) -> dict[str, int]:
    """Counts over clips: reference words, kinds of errors, loops and empty transcripts."""
    return {
        "words": sum(one.words.total for one in scores),
        "insertions": sum(one.words.insertions for one in scores),
        "deletions": sum(one.words.deletions for one in scores),
        "substitutions": sum(one.words.substitutions for one in scores),
        "loops": sum(one.is_loop for one in scores),
        "empty": sum(one.is_empty for one in scores),
    }


def error_rate(scores: Sequence[Score]) -> float | None:
    """Errors over reference words; None without any."""
    words = sum(one.words.total for one in scores)
    errors = sum(one.words.errors for one in scores)
    return round(errors / words, DIGITS) if words else None


def by_folder(
    rows: Sequence[Row], scores: Sequence[Score], baseline: Sequence[Score]
) -> dict[str, Any]:
    """Of each folder of speech: clips, word error rate, and its difference to the baseline's."""
    found = {}
    for name in dict.fromkeys(row["data"] for row in rows):
        chosen = [place for place, row in enumerate(rows) if row["data"] == name]
        counts = [
            (scores[place].words.total, scores[place].words.errors, baseline[place].words.errors)
            for place in chosen
        ]
        change = Bootstrap(counts).estimate(bootstrap.difference, 2, 1, 0)
        found[name] = {
            "clips": len(chosen),
            "wer": error_rate([scores[place] for place in chosen]),
            "difference": change.to_dict(DIGITS)["value"],
            "difference_interval": interval(change),
        }
    return found


def by_length(
    rows: Sequence[Row], baseline: Sequence[Row], scores: Sequence[Score], edges: Sequence[int]
) -> list[dict[str, Any]]:
    """Errors and times of each bin of clip length that has clips, the shortest first.

    Times are medians of seconds; a speed-up is the median over clips of the baseline's time over
    this variant's of the same clip.
    """
    bins = [length_bin(row["duration"], edges) for row in rows]
    found = []
    for above, up_to in sorted(set(bins), key=lambda one: one[0]):
        chosen = [place for place, one in enumerate(bins) if one == (above, up_to)]
        cell: dict[str, Any] = {
            "above": above,
            "up_to": up_to,
            "clips": len(chosen),
            "wer": error_rate([scores[place] for place in chosen]),
        }
        for key in ("seconds", "encoder_seconds"):
            own = np.array([rows[place][key] for place in chosen])
            full = np.array([baseline[place][key] for place in chosen])
            cell[key] = round(float(np.median(own)), DIGITS)
            cell[key.replace("seconds", "speed_up")] = round(float(np.median(full / own)), 3)
        found.append(cell)
    return found


def without_speech(rows: Sequence[Row]) -> dict[str, Any]:
    """How many sounds without speech were transcribed, those with text, its words, and loops."""
    texts = {row["item"]: row["text"].strip() for row in rows}
    return {
        "number": len(texts),
        "with_text": sum(map(bool, texts.values())),
        "words": sum(len(text.split()) for text in texts.values()),
        "loops": sum(map(has_loop, texts.values())),
        "again": sum(row["again"] > 0 for row in rows),
        "texts": {item: text for item, text in texts.items() if text},
    }


def load_range(rows: Sequence[Row]) -> dict[str, float]:
    """The machine's load average (1 minute) during the measurements."""
    loads = [row["load"] for row in rows]
    return {"least": min(loads), "median": float(np.median(loads)), "most": max(loads)}
