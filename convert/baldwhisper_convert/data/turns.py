"""Turns: the stretches of an utterance in which one language is spoken.

People who speak two languages change between them inside a sentence. Whisper has one language token
for 30 s, at the start of its output. A model can be trained to write one more wherever the language
changes: `<|ln|> wa áyáá <|fr|> demain matin <|ln|> ...`. The prompt stays that of one language. A
decoder that does not suppress language tokens writes them; they are no text.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from baldwhisper_convert.model.prompts import Prompts

TURNS_COLUMN = "turns"
"""Column of a dataset: a list of `start` and `end` in seconds, `language` and `text`."""

NO_TURNS = f"without {TURNS_COLUMN} (a list of start, end, language and text)"


@dataclass(frozen=True)
class Turn:
    """A stretch in one language."""

    start: float
    """Seconds from the start of the utterance."""
    end: float
    language: str
    """Code or English name."""
    text: str


def parse_turns(value: Any) -> tuple[Turn, ...]:
    """Turns as a dataset has them; none if the value is something else, or out of order.

    Example:
        >>> parse_turns([{"start": 0, "end": 1.5, "language": "fr", "text": "oui"}])[0].text
        'oui'
        >>> parse_turns("oui")
        ()
    """
    if not isinstance(value, Sequence) or isinstance(value, str | bytes):
        return ()
    try:
        turns = tuple(
            Turn(float(v["start"]), float(v["end"]), str(v["language"]), str(v["text"]))
            for v in value
        )
    except (KeyError, TypeError, ValueError):
        return ()
    times = [time for turn in turns for time in (turn.start, turn.end)]
    ordered = all(0 <= a <= b for a, b in itertools.pairwise(times))
    return turns if ordered else ()


def turns_fault(turns: Sequence[Turn], prompts: Prompts) -> str:
    """Why turns cannot be labels; empty if they can."""
    if not turns:
        return NO_TURNS
    for turn in turns:
        try:
            prompts.tokenizer.to_language(turn.language)
        except ValueError:
            return f"with a turn in {turn.language!r}, a language that the model does not know"
    return ""


def turn_tokens(
    utterances: Iterable[tuple[float, Sequence[Turn]]], prompts: Prompts, speed: float
) -> list[int]:
    """The tokens of a window: a segment for each turn, with a language token where it changes.

    The first change is from the language of the prompts.

    Args:
        utterances: of the window, each with its start in seconds and its turns.
        prompts: special tokens, and the language of the start of the output.
        speed: how many times as fast as planned the window is played.
    """
    tokenizer, spoken, tokens = prompts.tokenizer, prompts.language, list[int]()
    for start, turns in utterances:
        for turn in turns:
            times = [prompts.timestamp((start + time) / speed) for time in (turn.start, turn.end)]
            language = tokenizer.to_language(turn.language)
            change = [] if language == spoken else [tokenizer.languages[language]]
            tokens += [times[0], *change, *tokenizer.encode(f" {turn.text}"), times[1]]
            spoken = language
    return tokens
