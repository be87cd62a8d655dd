"""What is wrong with one transcript: edits of words and characters, loops, silence.

The edits are jiwer's, of a Levenshtein alignment of the normalized texts. Everything here is about
a single utterance; rates over many are bootstrap.py's and report.py's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
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
class Aligned:
    """A word of the reference beside the one it was heard as; None where there is none."""

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
    """One utterance, judged; the texts are normalized."""

    reference: str
    hypothesis: str
    words: Edits
    characters: Edits
    alignment: tuple[Aligned, ...]
    is_loop: bool
    """The hypothesis repeats itself and the reference does not."""

    @property
    def is_empty(self) -> bool:
        """Nothing was heard where something was said."""
        return bool(self.reference) and not self.hypothesis


def score(reference: str, hypothesis: str, normalize: Normalizer) -> Score:
    """Compares what was heard with what was said.

    A reference that is empty once normalized has no words to get wrong, but whatever is heard
    there counts as insertions.

    Args:
        reference: what was said.
        hypothesis: what was heard.
        normalize: applied to both; from `load_normalizer`.

    Raises:
        ModuleNotFoundError: jiwer is not installed; the message says how to get it.

    Example:
        >>> score("the cat sat", "a cat", load_normalizer("none")).words
        Edits(hits=1, substitutions=1, deletions=1, insertions=0)
    """
    said, heard = normalize(reference), normalize(hypothesis)
    words, alignment = _align(said.split(), heard.split(), "process_words")
    characters, _ = _align(said, heard, "process_characters")
    loop = has_loop(hypothesis) and not has_loop(reference)
    return Score(said, heard, words, characters, alignment, loop)


def _align(
    reference: Sequence[str], hypothesis: Sequence[str], process: str
) -> tuple[Edits, tuple[Aligned, ...]]:
    if not reference or not hypothesis:  # which older releases of jiwer refuse
        deleted = tuple(Aligned("D", item, None) for item in reference)
        inserted = tuple(Aligned("I", None, item) for item in hypothesis)
        return Edits(deletions=len(deleted), insertions=len(inserted)), deleted + inserted
    separator = " " if process == "process_words" else ""
    texts = separator.join(reference), separator.join(hypothesis)
    found = getattr(load_jiwer(), process)(*texts)
    edits = Edits(found.hits, found.substitutions, found.deletions, found.insertions)
    aligned: list[Aligned] = []
    for chunk in found.alignments[0]:
        said = reference[chunk.ref_start_idx : chunk.ref_end_idx]
        heard = hypothesis[chunk.hyp_start_idx : chunk.hyp_end_idx]
        for i in range(max(len(said), len(heard))):
            pair = said[i] if i < len(said) else None, heard[i] if i < len(heard) else None
            aligned.append(Aligned(_KINDS[chunk.type], *pair))
    return edits, tuple(aligned)


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
    """Whether a text got caught in a phrase: 24 letters or more that are one phrase, 4 times over.

    Letters, because not every language puts spaces between words, and because a loop may be
    shorter than a word. Four times, and a length, because people do say "no, no, no, no".

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
