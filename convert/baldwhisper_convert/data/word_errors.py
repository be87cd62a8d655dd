"""Word errors, counted by jiwer on normalized text."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any


def words_wrong(reference: str, hypothesis: str) -> tuple[int, int]:
    """Word errors of a hypothesis, and words of the reference.

    Both are lower-cased and freed of punctuation first (Whisper's basic normalizer).

    Example:
        >>> words_wrong("A cat sat.", "the cat sat")
        (1, 3)
    """
    import jiwer

    reference, hypothesis = _normalizer()(reference).strip(), _normalizer()(hypothesis).strip()
    total = len(reference.split())
    if not total or not hypothesis:
        return max(total, len(hypothesis.split())), total
    found = jiwer.process_words(reference, hypothesis)
    return found.substitutions + found.deletions + found.insertions, total


def word_error_rate(references: Sequence[str], hypotheses: Sequence[str]) -> float:
    """Word errors over reference words, all utterances together.

    Raises:
        ValueError: no words in the references.
    """
    counts = [words_wrong(r, h) for r, h in zip(references, hypotheses, strict=True)]
    total = sum(words for _, words in counts)
    if not total:
        raise ValueError("the references have no words, so there is no word error rate")
    return sum(wrong for wrong, _ in counts) / total


@cache
def _normalizer() -> Any:
    from transformers.models.whisper.english_normalizer import BasicTextNormalizer

    return BasicTextNormalizer()
