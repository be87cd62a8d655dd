"""Reference (REF) above hypothesis (HYP), word by word, with a letter below every error.

As `jiwer.visualize_alignment` draws it, but for what that takes one column for: combining marks,
such as the tones of Bambara, and East Asian letters.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence

from baldwhisper_mlx.evaluation.scoring import AlignedWord

WIDTH = 100
_LABELS = ("REF:", "HYP:", "    ")


def view(alignment: Sequence[AlignedWord], width: int = WIDTH) -> str:
    """Draws an alignment, in as many blocks of three lines as the width needs.

    Args:
        alignment: of one utterance.
        width: columns of a terminal.

    Example:
        >>> print(view(score("the cat sat", "a cat", load_normalizer("none")).alignment))
        REF: the cat sat
        HYP: a   cat ***
             S       D
    """
    blocks = []
    for part in _blocks(alignment, width - len(_LABELS[0]) - 1):
        columns = [(*_texts(pair), "" if pair.kind == "=" else pair.kind) for pair in part]
        widths = [max(map(_columns, texts)) for texts in columns]
        lines = []
        for label, texts in zip(_LABELS, zip(*columns, strict=True), strict=True):
            cells = (_pad(text, size) for text, size in zip(texts, widths, strict=True))
            lines.append(f"{label} {' '.join(cells)}".rstrip())
        blocks.append("\n".join(line for line in lines if line))
    return "\n\n".join(blocks)


def _texts(pair: AlignedWord) -> tuple[str, str]:
    """The two words; where there is none, stars as wide as the other."""
    reference, hypothesis = pair.reference or "", pair.hypothesis or ""
    stars = "*" * max(_columns(reference), _columns(hypothesis))
    return reference or stars, hypothesis or stars


def _blocks(alignment: Sequence[AlignedWord], width: int) -> Iterator[list[AlignedWord]]:
    block: list[AlignedWord] = []
    used = 0
    for pair in alignment:
        needed = 1 + max(map(_columns, _texts(pair)))
        if block and used + needed > width:
            yield block
            block, used = [], 0
        block.append(pair)
        used += needed
    if block:
        yield block


def _columns(text: str) -> int:
    """Width on a terminal: two columns for East Asian letters, none for combining marks."""
    return sum(
        0 if unicodedata.combining(c) else 1 + (unicodedata.east_asian_width(c) in "WF")
        for c in text
    )


def _pad(text: str, width: int) -> str:
    return text + " " * (width - _columns(text))
