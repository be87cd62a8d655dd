"""How the tokens of a window become timed segments.

The rules are those of OpenAI's `whisper/transcribe.py`, so that results can be compared one to one.
Of the vocabulary this module knows only which ids are timestamps; a function of the caller turns
tokens into text. Standard library only.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from baldwhisper_mlx.config import FRAMES_PER_POSITION, HOP_LENGTH, SAMPLE_RATE, TIME_PRECISION
from baldwhisper_mlx.output.segment import Segment


@dataclass(frozen=True)
class Piece:
    """A run of sampled tokens, timestamps included, and its time in seconds of the audio."""

    start: float
    end: float
    tokens: tuple[int, ...]


@dataclass(frozen=True)
class WindowSplit:
    """A window's pieces, and the mel frames from its start to the start of the next one.

    `advance` is positive. It may exceed the frames the window had: timestamps may point
    past the end of the audio. `is_complete` says that nothing is spoken after the last piece.
    """

    pieces: tuple[Piece, ...]
    advance: int
    is_complete: bool = False


def split_window(
    tokens: Sequence[int], *, timestamp_begin: int, seek: int, segment_size: int
) -> WindowSplit:
    """Cuts one window's tokens into timed pieces and says where the next window starts.

    The algorithm is the main loop of OpenAI's `whisper/transcribe.py`: two timestamps in
    a row end one piece and start the next, and what follows the last such pair is decoded
    again in the next window, unless the output ends in a single timestamp, which says that
    nothing is spoken after it. Without any pair the window is one piece.

    It differs from OpenAI's for outputs that the timestamp rules exclude: a first piece that
    opens with text starts with the window (theirs starts before the audio), no piece ends before
    it starts, and after a last pair at <|0.00|> the next window follows this one (theirs decodes
    the same one forever).

    Args:
        tokens: sampled ids, without prompt and end-of-text.
        timestamp_begin: id of <|0.00|>; ids from there on are timestamps.
        seek: mel frame (10 ms) at which the window starts.
        segment_size: mel frames of real audio in the window, at most 3000.

    Returns:
        At least one piece; pieces without text are kept.

    Raises:
        ValueError: `segment_size` is not positive or `seek` is negative.

    Example:
        >>> tokens = [50364, 400, 50464]
        >>> window = split_window(tokens, timestamp_begin=50364, seek=0, segment_size=3000)
        >>> window.pieces, window.advance
        ((Piece(start=0.0, end=2.0, tokens=(50364, 400, 50464)),), 3000)
    """
    if segment_size <= 0 or seek < 0:
        raise ValueError(f"no such window: seek {seek}, segment_size {segment_size} (mel frames)")
    offset = seek * HOP_LENGTH / SAMPLE_RATE
    is_timestamp = [token >= timestamp_begin for token in tokens]
    ends_in_single = is_timestamp[-2:] == [False, True]

    cuts = [i for i in range(1, len(tokens)) if is_timestamp[i - 1] and is_timestamp[i]]
    if not cuts:
        duration = segment_size * HOP_LENGTH / SAMPLE_RATE
        last = next((t - timestamp_begin for t in reversed(tokens) if t >= timestamp_begin), 0)
        if last:  # <|0.00|> alone says nothing about the end
            duration = last * TIME_PRECISION
        whole = Piece(offset, offset + duration, tuple(tokens))
        return WindowSplit((whole,), segment_size, ends_in_single)

    if ends_in_single:
        cuts.append(len(tokens))
    pieces = []
    for begin, end in zip([0, *cuts], cuts, strict=False):
        start = max(tokens[begin] - timestamp_begin, 0) * TIME_PRECISION
        stop = (tokens[end - 1] - timestamp_begin) * TIME_PRECISION
        start, stop = min(start, stop), max(start, stop)
        pieces.append(Piece(offset + start, offset + stop, tuple(tokens[begin:end])))
    last = tokens[cuts[-1] - 1] - timestamp_begin
    advance = segment_size if ends_in_single or last == 0 else last * FRAMES_PER_POSITION
    return WindowSplit(tuple(pieces), advance, ends_in_single)


def make_segments(
    pieces: Sequence[Piece],
    decode_text: Callable[[Sequence[int]], str],
    *,
    first_id: int,
    seek: int,
    temperature: float,
    avg_logprob: float,
    compression_ratio: float,
    no_speech_prob: float,
    logprobs: Sequence[float] | None = None,
    keep_empty: bool = False,
) -> tuple[Segment, ...]:
    """Segments from the pieces of one window: with their text and the window's statistics.

    As in OpenAI's code, a segment that takes no time or whose text is blank keeps its
    place and its id but loses text and tokens, so that it never becomes a prompt.

    Args:
        pieces: from `split_window`.
        decode_text: ids, timestamps among them, to text without timestamps.
        first_id: id of the first segment, the number of segments so far.
        seek: mel frame at which the window started.
        temperature: of the attempt that was accepted.
        avg_logprob: mean log-probability (nats) of the sampled tokens and end-of-text.
        compression_ratio: bytes of the window's text over its zlib-compressed bytes.
        no_speech_prob: probability of <|nospeech|> at the start of the window, 0 to 1.
        logprobs: of the tokens of all pieces, in nats.
        keep_empty: keep text and tokens of all; `add_words` calls `emptied_if_blank` later,
            when the words have changed the segments' times.
    """
    ends = itertools.accumulate(len(piece.tokens) for piece in pieces)
    segments = tuple(
        Segment(
            id=index,
            seek=seek,
            start=piece.start,
            end=piece.end,
            text=decode_text(piece.tokens),
            tokens=piece.tokens,
            temperature=temperature,
            avg_logprob=avg_logprob,
            compression_ratio=compression_ratio,
            no_speech_prob=no_speech_prob,
            logprobs=None if logprobs is None else tuple(logprobs[end - len(piece.tokens) : end]),
        )
        for index, (piece, end) in enumerate(zip(pieces, ends, strict=True), start=first_id)
    )
    return segments if keep_empty else tuple(map(emptied_if_blank, segments))


def emptied_if_blank(segment: Segment) -> Segment:
    """The segment; without text, tokens and words if it takes no time or its text is blank."""
    if segment.start != segment.end and segment.text.strip():
        return segment
    words = None if segment.words is None else ()
    logprobs = None if segment.logprobs is None else ()
    return dataclasses.replace(segment, text="", tokens=(), words=words, logprobs=logprobs)


def numbered(segments: Sequence[Segment], first_id: int) -> list[Segment]:
    """The segments with consecutive ids, whatever was left out among them."""
    return [
        dataclasses.replace(segment, id=index)
        for index, segment in enumerate(segments, start=first_id)
    ]


def main_language(segments: Sequence[Segment]) -> str | None:
    """The language in which most of the time is spoken; None if the segments have none."""
    seconds: dict[str, float] = {}
    for segment in segments:
        if segment.language is not None:
            length = segment.end - segment.start
            seconds[segment.language] = seconds.get(segment.language, 0.0) + length
    return max(seconds, key=lambda code: seconds[code], default=None)
