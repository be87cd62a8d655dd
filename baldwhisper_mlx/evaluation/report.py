"""The report of an evaluation: error rates, their intervals, and groups of utterances.

The report is a dict of JSON values; docs/evaluation.md says what each of them means.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from baldwhisper_mlx.evaluation import bootstrap
from baldwhisper_mlx.evaluation.bootstrap import Bootstrap
from baldwhisper_mlx.evaluation.hypotheses import Run
from baldwhisper_mlx.evaluation.scoring import Edits
from baldwhisper_mlx.evaluation.utterances import BASELINE, MODEL, Utterance, edits_dict

FORMAT = 1

LENGTHS = (5, 10, 20, 30)
"""Bounds of the rows by length, seconds."""


def make_report(
    utterances: Sequence[Utterance],
    runs: Mapping[str, Run],
    *,
    settings: Mapping[str, Any],
    skipped: Sequence[Mapping[str, str]] = (),
    samples: int = bootstrap.SAMPLES,
) -> dict[str, Any]:
    """All figures of an evaluation.

    Args:
        utterances: from `score_utterances`.
        runs: of each role.
        settings: the options of the evaluation, copied into the report.
        skipped: from `score_utterances`.
        samples: draws of every bootstrap.

    Raises:
        ValueError: no utterances.
    """
    if not utterances:
        raise ValueError("nothing to report: no utterance could be transcribed")
    counts = _Counts(utterances, list(runs), samples)
    return {
        "format": FORMAT,
        "settings": dict(settings),
        "data": {
            "utterances": len(utterances),
            "seconds": round(sum(one.duration for one in utterances), 3),
            "words": int(counts.bootstrap.totals[0]),
            "characters": int(counts.bootstrap.totals[1]),
            "speakers": len({one.speaker for one in utterances} - {None}),
            "empty_references": sum(not one.by[MODEL].score.reference for one in utterances),
            "skipped": [dict(one) for one in skipped],
        },
        "bootstrap": {"samples": samples, "level": bootstrap.LEVEL, "seed": 0},
        "models": {role: asdict(run) | counts.of(role) for role, run in runs.items()},
        "comparison": counts.comparison() if BASELINE in runs else None,
        "by_length": _groups(utterances, list(runs), samples, _length_class, _length_label),
        "by_speaker": _groups(
            [one for one in utterances if one.speaker],
            list(runs),
            samples,
            lambda one: one.speaker,
            str,
        ),
    }


class _Counts:
    """Errors of all models in a set of utterances, drawn together.

    Columns of the bootstrap: words, characters, then word and character errors of each role.
    """

    def __init__(self, utterances: Sequence[Utterance], roles: list[str], samples: int) -> None:
        self.utterances, self.roles = utterances, roles
        rows = []
        for one in utterances:
            scores = [one.by[role].score for role in roles]
            row = [scores[0].words.total, scores[0].characters.total]
            for score in scores:
                row += [score.words.errors, score.characters.errors]
            rows.append(row)
        self.bootstrap = Bootstrap(np.array(rows), samples=samples)

    def rate(self, role: str, unit: int) -> dict[str, Any]:
        """Error rate of one role in words (0) or characters (1), with its interval."""
        estimate = self.bootstrap.estimate(bootstrap.error_rate, self._errors(role, unit), unit)
        return estimate.to_dict()

    def _errors(self, role: str, unit: int) -> int:
        return 2 + 2 * self.roles.index(role) + unit

    def of(self, role: str) -> dict[str, Any]:
        """Everything about one role."""
        scored = [one.by[role] for one in self.utterances]
        words = _sum([one.score.words for one in scored])
        characters = _sum([one.score.characters for one in scored])
        seconds = sum(one.hypothesis.seconds for one in scored)
        duration = sum(one.hypothesis.duration for one in scored)
        return {
            "wer": self.rate(role, 0) | edits_dict(words),
            "cer": self.rate(role, 1) | edits_dict(characters),
            "empty_outputs": sum(one.score.is_empty for one in scored),
            "repetition_loops": sum(one.score.is_loop for one in scored),
            "seconds": round(seconds, 3),
            "rtf": round(seconds / duration, 6) if duration else None,
        }

    def comparison(self) -> dict[str, Any]:
        """The model against the baseline, in words and in characters."""
        result = {}
        for unit, name in enumerate(("wer", "cer")):
            pair = self._errors(BASELINE, unit), self._errors(MODEL, unit)
            estimates = {
                "retention": self.bootstrap.estimate(bootstrap.retention, *pair),
                "accuracy_ratio": self.bootstrap.estimate(bootstrap.accuracy_ratio, *pair, unit),
                "difference": self.bootstrap.estimate(bootstrap.difference, *pair, unit),
            }
            result[name] = {what: estimate.to_dict() for what, estimate in estimates.items()}
        return result


def _groups(
    utterances: Sequence[Utterance],
    roles: list[str],
    samples: int,
    key: Callable[[Utterance], Any],
    label: Callable[[Any], str],
) -> list[dict[str, Any]]:
    """A row for each group of utterances, in the order of their keys."""
    grouped: dict[Any, list[Utterance]] = {}
    for one in utterances:
        grouped.setdefault(key(one), []).append(one)
    rows = []
    for value in sorted(grouped):
        members = grouped[value]
        counts = _Counts(members, roles, samples)
        row: dict[str, Any] = {
            "group": label(value),
            "utterances": len(members),
            "seconds": round(sum(one.duration for one in members), 3),
            "words": int(counts.bootstrap.totals[0]),
        }
        for role in roles:
            row[role] = {"wer": counts.rate(role, 0), "cer": counts.rate(role, 1)}
        rows.append(row)
    return rows


def _length_class(one: Utterance) -> int:
    return sum(one.duration >= bound for bound in LENGTHS)


def _length_label(number: int) -> str:
    if number == 0:
        return f"under {LENGTHS[0]} s"
    if number == len(LENGTHS):
        return f"{LENGTHS[-1]} s or more"
    return f"{LENGTHS[number - 1]} to {LENGTHS[number]} s"


def _sum(edits: Sequence[Edits]) -> Edits:
    return Edits(
        hits=sum(one.hits for one in edits),
        substitutions=sum(one.substitutions for one in edits),
        deletions=sum(one.deletions for one in edits),
        insertions=sum(one.insertions for one in edits),
    )
