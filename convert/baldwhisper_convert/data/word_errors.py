"""Word errors during training and labelling, counted by jiwer on normalized text.

The figures are those of `baldwhisper evaluate --normalizer basic`; a test compares the two. The
code is separate because the converter does not import the runtime's evaluation room, which comes
with another set of optional packages. The normalizer here is the one in transformers, which the
converter needs anyway.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any


def words_wrong(reference: str, hypothesis: str) -> tuple[int, int]:
    """Counts the word errors of a hypothesis and the words of its reference.

    Both texts are normalized first by Whisper's basic normalizer: lower case, no punctuation.

    Returns:
        Substitutions, deletions and insertions together, and the number of reference words.

    Example:
        >>> words_wrong("A cat sat.", "the cat sat")
        (1, 3)
    """
    import jiwer

    reference, hypothesis = _normalizer()(reference).strip(), _normalizer()(hypothesis).strip()
    total = len(reference.split())
    if not total or not hypothesis:  # older releases of jiwer refuse empty texts
        return max(total, len(hypothesis.split())), total
    edits = jiwer.process_words(reference, hypothesis)
    return edits.substitutions + edits.deletions + edits.insertions, total


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
