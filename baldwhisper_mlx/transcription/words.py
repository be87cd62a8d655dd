"""Tokens with times become words with times: splitting, punctuation, and implausible lengths.

The rules are those of openai-whisper's `timing.py`, so that results can be compared one to one.
Standard library only.
"""

from __future__ import annotations

import dataclasses
import statistics
import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from baldwhisper_mlx.config import HOP_LENGTH, SAMPLE_RATE
from baldwhisper_mlx.transcription.segments import (
    Piece,
    Segment,
    WindowSplit,
    Word,
    without_nothing,
)

PREPENDED = "\"'“¿([{-"
"""Punctuation that belongs to the word after it."""
APPENDED = "\"'.。,，!！?？:：”)]}、"  # noqa: RUF001
"""Punctuation that belongs to the word before it."""
SENTENCE_ENDS = ".。!！?？"  # noqa: RUF001
WITHOUT_SPACES = ("zh", "ja", "th", "lo", "my", "yue")
"""Languages whose words are not told apart by spaces: every character counts as one."""

_LONGEST_MEDIAN = 0.7
"""Seconds; a median length of words above this is not believed."""


class Alignment(Protocol):
    """Seconds from the start of a window, and probabilities, by token; see alignment.py."""

    @property
    def starts(self) -> Sequence[float]: ...
    @property
    def ends(self) -> Sequence[float]: ...
    @property
    def probabilities(self) -> Sequence[float]: ...


@dataclass(frozen=True)
class TimedToken:
    """A text token: seconds from the start of the recording, and how likely it was."""

    token: int
    start: float
    end: float
    probability: float


@dataclass(frozen=True)
class _Timing:
    """A word on its way: `word` is empty if it was merged into a neighbour."""

    word: str
    n_tokens: int
    start: float
    end: float
    probability: float


def add_words(
    segments: Sequence[Segment],
    timed: Sequence[Sequence[TimedToken]],
    decode: Callable[[Sequence[int]], str],
    *,
    language: str,
    last_speech: float,
) -> tuple[tuple[Segment, ...], float]:
    """Gives the segments of one window their words, and times that fit them.

    Args:
        segments: of the window, none emptied yet.
        timed: for each segment, its text tokens.
        decode: ids to text, undecodable bytes as U+FFFD.
        language: code; see `WITHOUT_SPACES`.
        last_speech: seconds at which the last word before this window ended.

    Returns:
        The segments, and where their last word ends.
    """
    tokens = [token for part in timed for token in part]
    words = [_timing(word, part) for word, part in split_words(tokens, decode, language)]
    lengths = [word.end - word.start for word in words if word.end > word.start]
    usual = min(_LONGEST_MEDIAN, statistics.median(lengths)) if lengths else 0.0
    words = merge_punctuation(_shortened(words, 2 * usual))
    done, position = [], 0
    for segment, part in zip(segments, timed, strict=True):
        own: list[_Timing] = []
        covered = 0
        while position < len(words) and covered < len(part):
            covered += words[position].n_tokens
            if words[position].word:
                own.append(words[position])
            position += 1
        segment = _with_words(segment, own, usual, last_speech)
        last_speech = segment.end if own else last_speech
        done.append(without_nothing(segment))
    return tuple(done), last_speech


def timed_tokens(
    pieces: Sequence[Piece],
    tokens: Sequence[int],
    alignment: Alignment,
    *,
    eot: int,
    seek: int,
) -> list[list[TimedToken]]:
    """The text tokens of each piece of a window with their times.

    Args:
        pieces: of the window, one after the other from its first token on.
        tokens: of the window.
        alignment: of the tokens.
        eot: ids from there on are no text.
        seek: mel frame (10 ms) at which the window starts.
    """
    offset, position = seek * HOP_LENGTH / SAMPLE_RATE, 0
    timed = []
    for piece in pieces:
        places = range(position, position + len(piece.tokens))
        position = places.stop
        timed.append(
            [
                TimedToken(
                    tokens[i],
                    offset + alignment.starts[i],
                    offset + alignment.ends[i],
                    alignment.probabilities[i],
                )
                for i in places
                if tokens[i] < eot
            ]
        )
    return timed


def advance_by_words(window: WindowSplit, segments: Sequence[Segment], seek: int) -> int:
    """Mel frames to the next window: to the end of the last word, if speech may go on after it."""
    if window.is_complete or not segments:
        return window.advance
    words = next((s.words for s in reversed(segments) if s.words), None)
    end = words[-1].end if words else segments[-1].end
    frames = round(end * SAMPLE_RATE / HOP_LENGTH) - seek
    return frames if frames > 0 else window.advance


def split_words(
    tokens: Sequence[TimedToken], decode: Callable[[Sequence[int]], str], language: str
) -> list[tuple[str, list[TimedToken]]]:
    """Text tokens as words with their tokens.

    Tokens that hold parts of a character go together. Where there are spaces, a word begins with
    one, and punctuation that stands alone is a word of its own.
    """
    characters = _split_characters(tokens, decode)
    if language in WITHOUT_SPACES:
        return characters
    words: list[tuple[str, list[TimedToken]]] = []
    for text, part in characters:
        if not words or text.startswith(" ") or text.strip() in string.punctuation:
            words.append((text, list(part)))
        else:
            before, own = words[-1]
            words[-1] = (before + text, [*own, *part])
    return words


def _split_characters(
    tokens: Sequence[TimedToken], decode: Callable[[Sequence[int]], str]
) -> list[tuple[str, list[TimedToken]]]:
    whole = decode([token.token for token in tokens])
    found: list[tuple[str, list[TimedToken]]] = []
    part: list[TimedToken] = []
    offset = 0
    for token in tokens:
        part.append(token)
        text = decode([one.token for one in part])
        broken = text.find("\ufffd")
        # A replacement that the whole text has there too is no half of a character.
        if broken < 0 or whole[offset + broken : offset + broken + 1] == "\ufffd":
            found.append((text, part))
            offset += len(text)
            part = []
    if part:
        found.append((decode([one.token for one in part]), part))
    return found


def _timing(word: str, tokens: Sequence[TimedToken]) -> _Timing:
    probability = statistics.fmean(token.probability for token in tokens)
    return _Timing(word, len(tokens), tokens[0].start, tokens[-1].end, probability)


def _shortened(words: Sequence[_Timing], longest: float) -> list[_Timing]:
    """Words beside the end of a sentence, where a pause makes them look long, cut to `longest`."""
    found = list(words)
    for i in range(1, len(found)):
        word = found[i]
        if word.end - word.start <= longest:
            continue
        if word.word in SENTENCE_ENDS:
            found[i] = dataclasses.replace(word, end=word.start + longest)
        elif found[i - 1].word in SENTENCE_ENDS:
            found[i] = dataclasses.replace(word, start=word.end - longest)
    return found


def merge_punctuation(words: Sequence[_Timing]) -> list[_Timing]:
    """Punctuation joined to its word; what was joined stays as an empty word without tokens."""
    found = list(words)
    after = len(found) - 1
    for i in range(len(found) - 2, -1, -1):
        mark, word = found[i], found[after]
        if mark.word.startswith(" ") and mark.word.strip() in PREPENDED:
            found[after] = _joined(word, mark.word + word.word, mark.n_tokens)
            found[i] = dataclasses.replace(mark, word="", n_tokens=0)
        else:
            after = i
    before = 0
    for i in range(1, len(found)):
        word, mark = found[before], found[i]
        if not word.word.endswith(" ") and mark.word in APPENDED:
            found[before] = _joined(word, word.word + mark.word, mark.n_tokens)
            found[i] = dataclasses.replace(mark, word="", n_tokens=0)
        else:
            before = i
    return found


def _joined(word: _Timing, text: str, more: int) -> _Timing:
    return dataclasses.replace(word, word=text, n_tokens=word.n_tokens + more)


def _with_words(
    segment: Segment, timings: Sequence[_Timing], usual: float, last_speech: float
) -> Segment:
    """The segment with its words; each of the two gives way to the other where it must."""
    if not timings:
        return dataclasses.replace(segment, words=())
    words = [Word(round(t.start, 2), round(t.end, 2), t.word, t.probability) for t in timings]
    words = _after_a_pause(words, usual, last_speech)
    first, last = words[0], words[-1]
    start, end = segment.start, segment.end
    if start < first.end and start - 0.5 > first.start:
        words[0] = dataclasses.replace(first, start=max(0.0, min(first.end - usual, start)))
    else:
        start = first.start
    last = words[-1]
    if end > last.start and end + 0.5 < last.end:
        words[-1] = dataclasses.replace(last, end=max(last.start + usual, end))
    else:
        end = last.end
    return dataclasses.replace(segment, start=start, end=end, words=tuple(words))


def _after_a_pause(words: list[Word], usual: float, last_speech: float) -> list[Word]:
    """The first two words, shortened if they reach far back into a pause before them."""
    longest, first = 2 * usual, words[0]
    second = words[1] if len(words) > 1 else None
    is_long = first.end - first.start > longest or (
        second is not None and second.end - first.start > 2 * longest
    )
    if first.end - last_speech <= 4 * usual or not is_long:
        return words
    words = list(words)
    if second is not None and second.end - second.start > longest:
        boundary = max(second.end / 2, second.end - longest)
        words[0] = dataclasses.replace(first, end=boundary)
        words[1] = dataclasses.replace(second, start=boundary)
    words[0] = dataclasses.replace(words[0], start=max(0.0, words[0].end - longest))
    return words
