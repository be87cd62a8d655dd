"""From tokens with times to words with times.

Tokens are joined into words (word_splitting.py), punctuation is merged into its word, and words of
implausible length are shortened. The rules and their constants are those of openai-whisper's
`timing.py`, so that results can be compared one to one. Standard library only.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from baldwhisper_mlx.config import HOP_LENGTH, SAMPLE_RATE
from baldwhisper_mlx.output.segment import Segment, Word
from baldwhisper_mlx.transcription.segments import Piece, WindowSplit
from baldwhisper_mlx.transcription.word_splitting import TimedToken, split_words

PREPENDED = "\"'“¿([{-"
"""Punctuation that belongs to the word after it."""
APPENDED = "\"'.。,，!！?？:：”)]}、"  # noqa: RUF001
"""Punctuation that belongs to the word before it."""
SENTENCE_ENDS = ".。!！?？"  # noqa: RUF001
"""Punctuation beside which a pause can make a word look long."""

_LONGEST_MEDIAN = 0.7
"""Seconds; a window's median word length is taken to be at most this."""


class Alignment(Protocol):
    """Seconds from the start of a window, and probabilities, by token: decoding/alignment.py."""

    @property
    def starts(self) -> Sequence[float]: ...
    @property
    def ends(self) -> Sequence[float]: ...
    @property
    def probabilities(self) -> Sequence[float]: ...


@dataclass(frozen=True)
class _Timing:
    """A word in seconds of the recording; `word` is empty if it was merged into a neighbour."""

    word: str
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
    """Adds their words to the segments of one window, and adjusts the segments' times to them.

    The words of a segment, joined, are its text.

    Args:
        segments: of the window, those without text still among them; what takes no time or has
            a blank text even with its words is emptied later.
        timed: the text tokens of each segment.
        decode: ids to text, undecodable bytes as U+FFFD.
        language: code, which tells where words are split.
        last_speech: seconds at which the last word before this window ended.

    Returns:
        The segments, and the seconds at which their last word ends.
    """
    # The reference splits the text of the window as a whole. Where a segment begins within a word,
    # or with a mark that belongs to the word before it, all later words of the window then slip
    # into other segments than their text.
    split = [split_words(part, decode, language) for part in timed]
    words = [_timing(word, part) for segment in split for word, part in segment]
    lengths = [word.end - word.start for word in words if word.end > word.start]
    usual = min(_LONGEST_MEDIAN, statistics.median(lengths)) if lengths else 0.0
    words = _shortened(words, 2 * usual)
    result, position = [], 0
    for segment, own in zip(segments, split, strict=True):
        end = position + len(own)
        segment_words = [word for word in merge_punctuation(words[position:end]) if word.word]
        position = end
        segment = _with_words(segment, segment_words, usual, last_speech)
        last_speech = segment.end if segment_words else last_speech
        result.append(segment)
    return tuple(result), last_speech


def timed_tokens(
    pieces: Sequence[Piece],
    tokens: Sequence[int],
    alignment: Alignment,
    *,
    order: Sequence[int],
    eot: int,
    seek: int,
) -> list[list[TimedToken]]:
    """The text tokens of each piece of a window with their times.

    Args:
        pieces: of the window, consecutive from its first token on.
        tokens: of the window, in the order of the pieces.
        alignment: of the window's tokens as they were decoded.
        order: where each of `tokens` is in the alignment; see `segments.whole_characters`.
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
                    offset + alignment.starts[order[i]],
                    offset + alignment.ends[order[i]],
                    alignment.probabilities[order[i]],
                )
                for i in places
                if tokens[i] < eot
            ]
        )
    return timed


def advance_by_words(window: WindowSplit, segments: Sequence[Segment], seek: int) -> int:
    """Mel frames to the next window, which starts where the last word ends.

    Unless nothing is spoken after the window's last piece: then as without words.
    """
    if window.is_complete or not segments:
        return window.advance
    words = next((s.words for s in reversed(segments) if s.words), None)
    end = words[-1].end if words else segments[-1].end
    # Words may end where the window starts; without progress the window would be decoded again.
    frames = round(end * SAMPLE_RATE / HOP_LENGTH) - seek
    return frames if frames > 0 else window.advance


def _timing(word: str, tokens: Sequence[TimedToken]) -> _Timing:
    """A word from the start of its first token to the end of its last."""
    probability = statistics.fmean(token.probability for token in tokens)
    return _Timing(word, tokens[0].start, tokens[-1].end, probability)


def _shortened(words: Sequence[_Timing], longest: float) -> list[_Timing]:
    """The words, those beside the end of a sentence cut to `longest` seconds.

    Attention does not tell where a pause belongs, so it makes the words next to it look long.
    """
    result = list(words)
    for i in range(1, len(result)):
        word = result[i]
        if word.end - word.start <= longest:
            continue
        if word.word in SENTENCE_ENDS:  # the pause follows the mark
            result[i] = dataclasses.replace(word, end=word.start + longest)
        elif result[i - 1].word in SENTENCE_ENDS:  # the pause precedes the word
            result[i] = dataclasses.replace(word, start=word.end - longest)
    return result


def merge_punctuation(words: Sequence[_Timing]) -> list[_Timing]:
    """The words with punctuation merged into the word it belongs to.

    A mark that was merged stays in its place, as an empty word. The times of a word stay those of
    its letters.
    """
    result = list(words)
    # From the end, so that several opening marks in a row all reach the word after them.
    after = len(result) - 1
    for i in range(len(result) - 2, -1, -1):
        mark, word = result[i], result[after]
        if mark.word.startswith(" ") and mark.word.strip() in PREPENDED:
            result[after] = dataclasses.replace(word, word=mark.word + word.word)
            result[i] = dataclasses.replace(mark, word="")
        else:
            after = i
    # From the start, for the closing marks after a word.
    before = 0
    for i in range(1, len(result)):
        word, mark = result[before], result[i]
        if not word.word.endswith(" ") and mark.word in APPENDED:
            result[before] = dataclasses.replace(word, word=word.word + mark.word)
            result[i] = dataclasses.replace(mark, word="")
        else:
            before = i
    return result


def _with_words(
    segment: Segment, timings: Sequence[_Timing], usual: float, last_speech: float
) -> Segment:
    """The segment with its words, and the times of both reconciled at either end.

    The segment's times come from timestamp tokens, the words' from attention. Where they are half a
    second apart the timestamps are trusted, else the words.

    Args:
        segment: without words.
        timings: of its words.
        usual: seconds of a word of median length.
        last_speech: seconds at which the last word before the segment ended.
    """
    if not timings:
        return dataclasses.replace(segment, words=())
    words = [Word(round(t.start, 2), round(t.end, 2), t.word, t.probability) for t in timings]
    words = _after_a_pause(words, usual, last_speech)
    first = words[0]
    start, end = segment.start, segment.end
    # The first word starts long before the segment: it reaches back into a pause.
    if start < first.end and start - 0.5 > first.start:
        words[0] = dataclasses.replace(first, start=max(0.0, min(first.end - usual, start)))
    else:
        start = first.start
    # The last word ends long after the segment: it reaches into the pause that follows.
    last = words[-1]
    if end > last.start and end + 0.5 < last.end:
        words[-1] = dataclasses.replace(last, end=max(last.start + usual, end))
    else:
        end = last.end
    return dataclasses.replace(segment, start=start, end=end, words=tuple(words))


def _after_a_pause(words: list[Word], usual: float, last_speech: float) -> list[Word]:
    """The words, the first two shortened if they reach far back into a pause before them.

    Args:
        words: of a segment.
        usual: seconds of a word of median length.
        last_speech: seconds at which the last word before the segment ended.
    """
    longest, first = 2 * usual, words[0]
    second = words[1] if len(words) > 1 else None
    is_long = first.end - first.start > longest or (
        second is not None and second.end - first.start > 2 * longest
    )
    if first.end - last_speech <= 4 * usual or not is_long:
        return words
    words = list(words)
    # A long second word has taken over part of the pause; the boundary moves towards its end.
    if second is not None and second.end - second.start > longest:
        # Half the end's absolute time is openai-whisper's bound, kept for the same results.
        boundary = max(second.end / 2, second.end - longest)
        words[0] = dataclasses.replace(first, end=boundary)
        words[1] = dataclasses.replace(second, start=boundary)
    words[0] = dataclasses.replace(words[0], start=max(0.0, words[0].end - longest))
    return words
