"""Which tokens make a word: whole characters first, then words at spaces and punctuation.

The rules are those of openai-whisper's `tokenizer.py`. Standard library only.
"""

from __future__ import annotations

import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass

WITHOUT_SPACES = ("zh", "ja", "th", "lo", "my", "yue")
"""Languages written without spaces between words: every character counts as a word."""


@dataclass(frozen=True)
class TimedToken:
    """A text token: seconds from the start of the recording, and its probability."""

    token: int
    start: float
    end: float
    probability: float


def split_words(
    tokens: Sequence[TimedToken], decode: Callable[[Sequence[int]], str], language: str
) -> list[tuple[str, list[TimedToken]]]:
    """Text tokens, grouped by words.

    Tokens that hold parts of one character stay together. In languages with spaces a word begins
    with one, and punctuation that stands alone is a word by itself.

    Returns:
        Text and tokens of each word.
    """
    characters = _split_characters(tokens, decode)
    if language in WITHOUT_SPACES:
        return characters
    words: list[tuple[str, list[TimedToken]]] = []
    for text, part in characters:
        if not words or text.startswith(" ") or text.strip() in string.punctuation:
            words.append((text, list(part)))
        else:
            word, word_tokens = words[-1]
            words[-1] = (word + text, [*word_tokens, *part])
    return words


def _split_characters(
    tokens: Sequence[TimedToken], decode: Callable[[Sequence[int]], str]
) -> list[tuple[str, list[TimedToken]]]:
    """The shortest groups of tokens that decode to whole characters, with their text."""
    whole = decode([token.token for token in tokens])
    groups: list[tuple[str, list[TimedToken]]] = []
    group: list[TimedToken] = []
    offset = 0
    for token in tokens:
        group.append(token)
        text = decode([member.token for member in group])
        replaced = text.find("\ufffd")
        # U+FFFD stands for a part of a character, unless the whole text has it in that place, too.
        if replaced < 0 or whole[offset + replaced : offset + replaced + 1] == "\ufffd":
            groups.append((text, group))
            offset += len(text)
            group = []
    if group:  # the text ends within a character
        groups.append((decode([member.token for member in group]), group))
    return groups
