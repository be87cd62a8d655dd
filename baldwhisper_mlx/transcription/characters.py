"""Characters that timestamps would cut: a token may hold a part of a character only.

Standard library only.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

_LONGEST = 4
"""Bytes, and so tokens, of a character in UTF-8."""


def whole_characters(
    tokens: Sequence[int], decode: Callable[[Sequence[int]], str], *, timestamp_begin: int
) -> list[int]:
    """An order of a window's tokens in which no pair of timestamps cuts a character.

    A pair ends one segment and starts the next. The tokens behind it that complete a character
    which begins before it move before it, so that the character belongs to the first segment.

    Args:
        tokens: of the window.
        decode: ids to text, undecodable bytes as U+FFFD.
        timestamp_begin: id of <|0.00|>; ids from there on are timestamps.

    Returns:
        The indices of the tokens, ascending but for those that move.

    Example:
        >>> decode = lambda ids: bytes(ids).decode(errors="replace")
        >>> whole_characters([300, 0xC3, 310, 310, 0xA9, 65, 320], decode, timestamp_begin=300)
        [0, 1, 4, 2, 3, 5, 6]
    """
    order: list[int] = []
    position = 0
    while position < len(tokens):
        moved = range(0)
        if position and min(tokens[position : position + 2]) >= timestamp_begin:
            count = _completing(tokens, position, decode, timestamp_begin)
            moved = range(position + 2, position + 2 + count)
        order += moved
        order += range(position, min(position + (2 if moved else 1), len(tokens)))
        position += 2 + len(moved) if moved else 1
    return order


def _completing(
    tokens: Sequence[int],
    pair: int,
    decode: Callable[[Sequence[int]], str],
    timestamp_begin: int,
) -> int:
    """How many tokens behind a pair of timestamps complete the character before it."""

    def is_text(token: int) -> bool:
        return token < timestamp_begin

    def broken(*parts: Sequence[int]) -> int:
        return sum(decode(part).count("\ufffd") for part in parts)

    last = reversed(tokens[max(0, pair - _LONGEST) : pair])
    before = list(itertools.takewhile(is_text, last))[::-1]
    behind = list(itertools.takewhile(is_text, tokens[pair + 2 : pair + 2 + _LONGEST]))
    if not decode(before).endswith("\ufffd"):
        return 0
    counts = range(min(len(behind) + 1, _LONGEST))
    return min(counts, key=lambda count: broken(before + behind[:count], behind[count:]))
