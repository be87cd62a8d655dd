"""Reference over hypothesis, word under word, with a letter below whatever is wrong."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence

from baldwhisper_mlx.evaluation.scoring import Aligned

WIDTH = 100
_LABELS = ("said ", "heard", "     ")


def view(alignment: Sequence[Aligned], width: int = WIDTH) -> str:
    """Draws an alignment, in as many blocks of three lines as the width asks for.

    Args:
        alignment: of one utterance.
        width: columns of a terminal.

    Example:
        >>> print(view(score("the cat sat", "a cat", load_normalizer("none")).alignment))
        said   the cat sat
        heard  a   cat ***
               S       D
    """
    blocks = []
    for part in _blocks(alignment, width - len(_LABELS[0]) - 2):
        columns = [(*_texts(pair), "" if pair.kind == "=" else pair.kind) for pair in part]
        widths = [max(map(_columns, texts)) for texts in columns]
        lines = []
        for label, texts in zip(_LABELS, zip(*columns, strict=True), strict=True):
            cells = (_pad(text, size) for text, size in zip(texts, widths, strict=True))
            lines.append(f"{label}  {' '.join(cells)}".rstrip())
        blocks.append("\n".join(line for line in lines if line))
    return "\n\n".join(blocks)


def _texts(pair: Aligned) -> tuple[str, str]:
    """The two words; where there is none, stars as wide as the other."""
    reference, hypothesis = pair.reference or "", pair.hypothesis or ""
    stars = "*" * max(_columns(reference), _columns(hypothesis))
    return reference or stars, hypothesis or stars


def _blocks(alignment: Sequence[Aligned], width: int) -> Iterator[list[Aligned]]:
    block: list[Aligned] = []
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
