"""Utterances with the scored transcripts of every model, for reports and utterances.jsonl."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from baldwhisper_mlx.evaluation.hypotheses import ClipResult, Hypothesis
from baldwhisper_mlx.evaluation.normalizers import Normalizer
from baldwhisper_mlx.evaluation.scoring import Edits, Score, score

MODEL, BASELINE = "model", "baseline"
"""The two roles; retention is the baseline's errors over the model's."""


@dataclass(frozen=True)
class ScoredHypothesis:
    """The transcript of an utterance by one model, and its errors."""

    hypothesis: Hypothesis
    score: Score


@dataclass(frozen=True)
class Utterance:
    """One utterance and its transcripts by all models."""

    file: str
    reference: str
    speaker: str | None
    by: dict[str, ScoredHypothesis]
    """By role."""

    @property
    def duration(self) -> float:
        """Seconds of audio."""
        return self.by[MODEL].hypothesis.duration

    def to_dict(self) -> dict[str, Any]:
        """As a line of utterances.jsonl."""
        row: dict[str, Any] = {
            "file": self.file,
            "speaker": self.speaker,
            "duration": self.duration,
            "reference": self.reference,
            "normalized_reference": self.by[MODEL].score.reference,
        }
        for role, scored in self.by.items():
            score = scored.score
            row[role] = {
                "hypothesis": scored.hypothesis.text,
                "normalized_hypothesis": score.hypothesis,
                "words": edits_dict(score.words),
                "characters": edits_dict(score.characters),
                "is_empty": score.is_empty,
                "is_loop": score.is_loop,
                "seconds": scored.hypothesis.seconds,
                "alignment": [
                    [pair.kind, pair.reference, pair.hypothesis] for pair in score.alignment
                ],
            }
        return row


def score_utterances(
    results: Mapping[str, Sequence[ClipResult]], normalize: Normalizer
) -> tuple[list[Utterance], list[dict[str, str]]]:
    """Scores the transcripts of the same clips by all models.

    Args:
        results: of each role, one for each clip, in the same order.
        normalize: from `load_normalizer`.

    Returns:
        The utterances that all models transcribed; and `file` and `reason` of the others.
    """
    utterances, skipped = [], []
    for together in zip(*results.values(), strict=True):
        first = together[0]
        by = {
            role: ScoredHypothesis(
                one.hypothesis, score(one.reference, one.hypothesis.text, normalize)
            )
            for role, one in zip(results, together, strict=True)
            if one.hypothesis is not None
        }
        if len(by) == len(results):
            utterances.append(Utterance(first.file, first.reference, first.speaker, by))
        else:
            reason = next(one.reason for one in together if one.hypothesis is None)
            skipped.append({"file": first.file, "reason": reason})
    return utterances, skipped


def worst(utterances: Sequence[Utterance], count: int) -> list[Utterance]:
    """The utterances in which the model got most words wrong, most first; none without errors."""
    wrong = [one for one in utterances if one.by[MODEL].score.words.errors]
    return sorted(wrong, key=lambda one: -one.by[MODEL].score.words.errors)[:count]


def edits_dict(edits: Edits) -> dict[str, int]:
    """As reports give them: errors, length of the reference, and the kinds of edits."""
    return {"errors": edits.errors, "total": edits.total} | asdict(edits)
