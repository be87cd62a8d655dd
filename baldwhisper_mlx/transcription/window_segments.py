"""The segments of one decoded window: whole characters, word times, and nothing made up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from baldwhisper_mlx.decoding.result import DecodingResult
from baldwhisper_mlx.output.segment import Segment
from baldwhisper_mlx.text.tokenizer import Tokenizer
from baldwhisper_mlx.transcription.characters import whole_characters
from baldwhisper_mlx.transcription.options import TranscribeOptions
from baldwhisper_mlx.transcription.second_opinion import WindowSpeech, checked
from baldwhisper_mlx.transcription.segments import make_segments, split_window
from baldwhisper_mlx.transcription.words import add_words, advance_by_words, timed_tokens


@dataclass(frozen=True)
class Window:
    """A window of a recording, and how it was decoded."""

    tokenizer: Tokenizer
    options: TranscribeOptions
    seek: int
    """Mel frame (10 ms) at which it starts."""
    n_frames: int
    """Mel frames of audio in it."""
    language: str
    """Code, which tells where words are split."""


def window_segments(
    result: DecodingResult,
    ratio: float,
    window: Window,
    speech: WindowSpeech,
    *,
    previous: Sequence[int],
    last_speech: float,
) -> tuple[list[Segment], int, float]:
    """The segments of a window that have text.

    Args:
        result: of the attempt that was accepted.
        ratio: its compression ratio.
        window: that was decoded.
        speech: where somebody speaks in it.
        previous: tokens of the text that it was conditioned on.
        last_speech: seconds at which the last word before it ended, with word timestamps.

    Returns:
        The segments, the mel frames from the window to the next one, and the seconds at which
        the last word ended.
    """
    tokenizer, seek, words = window.tokenizer, window.seek, window.options.word_timestamps
    begin = tokenizer.timestamp_begin
    order = whole_characters(result.tokens, tokenizer.decode, timestamp_begin=begin)
    tokens = [result.tokens[index] for index in order]
    split = split_window(tokens, timestamp_begin=begin, seek=seek, segment_size=window.n_frames)
    segments = make_segments(
        split.pieces,
        tokenizer.decode,
        first_id=0,
        seek=seek,
        temperature=result.temperature,
        avg_logprob=result.avg_logprob,
        compression_ratio=ratio,
        no_speech_prob=result.no_speech_prob,
        keep_empty=words,
    )
    advance = split.advance
    if words:
        assert result.alignment is not None
        timed = timed_tokens(
            split.pieces, tokens, result.alignment, order=order, eot=tokenizer.eot, seek=seek
        )
        segments, last_speech = add_words(
            segments,
            timed,
            tokenizer.decode,
            language=window.language,
            last_speech=last_speech,
        )
        advance = advance_by_words(split, segments, seek)
    kept: Sequence[Segment] = segments
    if window.options.no_speech_threshold is not None:
        kept = checked(segments, previous, speech, text_end=tokenizer.eot)
    return [segment for segment in kept if segment.text], advance, last_speech
