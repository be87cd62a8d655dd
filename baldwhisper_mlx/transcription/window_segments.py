"""The segments of one decoded window: whole characters, word times, and nothing made up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from baldwhisper_mlx.config import FRAMES_PER_SECOND
from baldwhisper_mlx.decoding.result import DecodingResult
from baldwhisper_mlx.output.segment import Segment
from baldwhisper_mlx.text.tokenizer import Tokenizer
from baldwhisper_mlx.transcription.characters import whole_characters
from baldwhisper_mlx.transcription.hallucinations import without_hallucinations
from baldwhisper_mlx.transcription.options import TranscribeOptions
from baldwhisper_mlx.transcription.retiming import within_audio
from baldwhisper_mlx.transcription.second_opinion import WindowSpeech, checked
from baldwhisper_mlx.transcription.segments import (
    WindowSplit,
    emptied_if_blank,
    make_segments,
    split_window,
)
from baldwhisper_mlx.transcription.word_splitting import TimedToken
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
    range_end: int
    """Mel frame at which the range ends that it lies in."""
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
    order = whole_characters(
        result.tokens,
        window.tokenizer.decode,
        timestamp_begin=window.tokenizer.timestamp_begin,
    )
    tokens = [result.tokens[index] for index in order]
    split = split_window(
        tokens,
        timestamp_begin=window.tokenizer.timestamp_begin,
        seek=window.seek,
        segment_size=window.n_frames,
    )
    segments = make_segments(
        split.pieces,
        window.tokenizer.decode,
        first_id=0,
        seek=window.seek,
        temperature=result.temperature,
        avg_logprob=result.avg_logprob,
        compression_ratio=ratio,
        no_speech_prob=result.no_speech_prob,
        logprobs=result.logprobs and [result.logprobs[index] for index in order],
        keep_empty=window.options.word_timestamps,
    )
    advance = split.advance
    if window.options.word_timestamps:
        assert result.alignment is not None
        timed = timed_tokens(
            split.pieces, tokens, result.alignment, order=order, eot=window.tokenizer.eot,
            seek=window.seek,
        )  # fmt: skip
        segments, advance, last_speech = _with_words(segments, timed, split, window, last_speech)
    return _kept(segments, window, speech, previous), advance, last_speech


def _with_words(
    segments: Sequence[Segment],
    timed: Sequence[Sequence[TimedToken]],
    split: WindowSplit,
    window: Window,
    last_speech: float,
) -> tuple[tuple[Segment, ...], int, float]:
    """The segments with their words; advance and end of the last word as in `window_segments`."""
    decode, language = window.tokenizer.decode, window.language
    found, last = add_words(segments, timed, decode, language=language, last_speech=last_speech)
    advance = advance_by_words(split, found, window.seek)
    threshold = window.options.hallucination_silence_threshold
    if threshold is None:
        return found, advance, last
    kept, advance, last = without_hallucinations(
        found,
        advance,
        threshold,
        seek=window.seek,
        n_frames=window.n_frames,
        range_end=window.range_end,
        is_complete=split.is_complete,
        last_speech=last_speech,
    )
    return tuple(kept), advance, last


def _kept(
    segments: Sequence[Segment], window: Window, speech: WindowSpeech, previous: Sequence[int]
) -> list[Segment]:
    """The segments with text that was not made up, within the range of the window."""
    kept: Sequence[Segment] = [emptied_if_blank(segment) for segment in segments]
    options = window.options
    if options.no_speech_threshold is not None:
        kept = checked(
            kept, previous, speech, text_end=window.tokenizer.eot, hotwords=options.hotwords
        )
    kept = [segment for segment in kept if segment.text]
    if options.ranges is not None:  # no text of a range ends after it
        end, begin = window.range_end / FRAMES_PER_SECOND, window.seek / FRAMES_PER_SECOND
        kept = within_audio(kept, end, begin=begin)
    return list(kept)
