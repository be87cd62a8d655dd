"""The errors of one transcript: edits of words and characters, loops, empty output.

The edits are jiwer's, of a Levenshtein alignment of the normalized texts. Everything here is about
a single utterance; bootstrap.py and report.py compute rates over many.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, Literal

import numpy as np

from baldwhisper_mlx.decoding.repetition import repeats
from baldwhisper_mlx.evaluation.normalizers import INSTALL, Normalizer, basic

LOOP_REPEATS = 4
LOOP_CHARACTERS = 24
_LONGEST_PHRASE = 250

Kind = Literal["=", "S", "D", "I"]

_KINDS: dict[str, Kind] = {"equal": "=", "substitute": "S", "delete": "D", "insert": "I"}


@dataclass(frozen=True)
class AlignedWord:
    """A word of the reference and the word aligned with it; None where there is none."""

    kind: Kind
    """Equal, substituted, deleted or inserted."""
    reference: str | None
    hypothesis: str | None


@dataclass(frozen=True)
class Edits:
    """What turns a reference into a hypothesis, in words or in characters."""

    hits: int = 0
    substitutions: int = 0
    deletions: int = 0
    insertions: int = 0

    @property
    def errors(self) -> int:
        """Substitutions, deletions and insertions."""
        return self.substitutions + self.deletions + self.insertions

    @property
    def total(self) -> int:
        """Length of the reference."""
        return self.hits + self.substitutions + self.deletions


@dataclass(frozen=True)
class Score:
    """The errors of one utterance; the texts are normalized."""

    reference: str
    hypothesis: str
    words: Edits
    characters: Edits
    alignment: tuple[AlignedWord, ...]
    is_loop: bool
    """The hypothesis repeats itself and the reference does not."""

    @property
    def is_empty(self) -> bool:
        """The hypothesis is empty and the reference is not."""
        return bool(self.reference) and not self.hypothesis


def score(reference: str, hypothesis: str, normalize: Normalizer) -> Score:
    """Compares a transcript with its reference.

    A reference that is empty once normalized has no words to get wrong, but all words of the
    hypothesis count as insertions.

    Args:
        reference: the correct text.
        hypothesis: the transcript.
        normalize: applied to both; from `load_normalizer`.

    Raises:
        ModuleNotFoundError: jiwer is not installed; the message says how to get it.

    Example:
        >>> score("the cat sat", "a cat", load_normalizer("none")).words
        Edits(hits=1, substitutions=1, deletions=1, insertions=0)
    """
    jiwer = load_jiwer()
    texts = normalize(reference), normalize(hypothesis)
    words, characters = jiwer.process_words(*texts), jiwer.process_characters(*texts)
    loop = has_loop(hypothesis) and not has_loop(reference)
    return Score(*texts, _edits(words), _edits(characters), tuple(_aligned_words(words)), loop)


def _edits(output: Any) -> Edits:
    return Edits(output.hits, output.substitutions, output.deletions, output.insertions)


def _aligned_words(output: Any) -> Iterator[AlignedWord]:
    """The words of jiwer's alignment of one reference with one hypothesis, in pairs."""
    for chunk in output.alignments[0]:
        # a chunk of deletions has no words of the hypothesis, one of insertions none of the other
        pairs = zip_longest(
            output.references[0][chunk.ref_start_idx : chunk.ref_end_idx],
            output.hypotheses[0][chunk.hyp_start_idx : chunk.hyp_end_idx],
        )
        yield from (AlignedWord(_KINDS[chunk.type], *pair) for pair in pairs)


def load_jiwer() -> Any:
    """The package that counts the errors.

    Raises:
        ModuleNotFoundError: it is not installed; the message says how to get it.
    """
    try:
        import jiwer
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            f"word errors are counted by the package jiwer: {INSTALL}, or pip install jiwer"
        ) from None
    return jiwer


def has_loop(text: str) -> bool:
    """Whether a text repeats one phrase 4 times or more in a row, over 24 letters or more.

    Letters, because not every language puts spaces between words, and because a loop may be
    shorter than a word. A number of times and a length, because people do say "no, no, no, no".

    Example:
        >>> has_loop("and so on" + " and so on" * 3), has_loop("no, no, no, no!")
        (True, False)
    """
    letters = basic(text).replace(" ", "")
    codes = np.array([ord(c) for c in letters], np.int32)
    longest = min(len(codes) // LOOP_REPEATS, _LONGEST_PHRASE)
    for period in range(1, longest + 1):
        _, lengths = repeats(codes, period)
        if lengths.max() + period >= max(LOOP_REPEATS * period, LOOP_CHARACTERS):
            return True
    return False
