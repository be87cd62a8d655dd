"""Text that was probably made up in silence, by its words: `hallucination_silence_threshold`.

The rules and their constants are those of openai-whisper's `transcribe.py`, so that results can be
compared one to one. Words of unlikely length or probability make a segment suspicious; if it also
has silence or other such segments around it, it is left out, and the next window starts at it.
Standard library only.
"""

from __future__ import annotations

from collections.abc import Sequence

from baldwhisper_mlx.config import FRAMES_PER_POSITION, FRAMES_PER_SECOND, WINDOW_POSITIONS
from baldwhisper_mlx.output.segment import Segment, Word
from baldwhisper_mlx.transcription.words import APPENDED, PREPENDED

_WINDOW = WINDOW_POSITIONS * FRAMES_PER_POSITION
"""Mel frames of a window, whose end counts even if the audio ends before it."""
_NEAR_THE_EDGE = 2.0
"""Seconds from the start or the end of a window within which no silence is needed."""


def without_hallucinations(
    segments: Sequence[Segment],
    advance: int,
    threshold: float,
    *,
    seek: int,
    n_frames: int,
    range_end: int,
    is_complete: bool,
    last_speech: float,
) -> tuple[list[Segment], int, float]:
    """The segments of a window up to the first one that was probably made up.

    Args:
        segments: of the window, with words.
        advance: mel frames from the window to the next one, so far.
        threshold: seconds of silence that are long.
        seek: mel frame (10 ms) at which the window starts.
        n_frames: mel frames of audio in the window.
        range_end: mel frame at which what is transcribed ends.
        is_complete: whether nothing is spoken after the last segment.
        last_speech: seconds at which the last word before the window ended.

    Returns:
        The segments, the mel frames from the window to the next one, and the seconds at which the
        last word ended.
    """
    begin, window_end = seek / FRAMES_PER_SECOND, (seek + _WINDOW) / FRAMES_PER_SECOND
    end = _last_end(segments)
    if not is_complete and end is not None and end > begin:
        # What little follows the last word is not worth a window of its own.
        is_long = window_end - end > threshold
        advance = _frames(end) - seek if is_long else n_frames
    first = next((segment for segment in segments if segment.words), None)
    if first is not None and is_anomaly(first) and first.start - begin > threshold:
        # The text is decoded again without the silence before it.
        return [], max(1, _frames(first.start - begin)), last_speech
    index = _first_made_up(segments, threshold, seek, n_frames, last_speech)
    kept = list(segments[:index])
    if index is not None:
        made_up = segments[index]
        advance = _frames(max(begin + 1, made_up.start)) - seek
        if range_end / FRAMES_PER_SECOND - made_up.end < threshold:
            advance = range_end - seek
    end = _last_end(kept)
    return kept, max(1, advance), last_speech if end is None else end


def _first_made_up(
    segments: Sequence[Segment], threshold: float, seek: int, n_frames: int, last_speech: float
) -> int | None:
    """The first suspicious segment with silence around it; None if there is none.

    Arguments as for `without_hallucinations`.
    """
    begin, window_end = seek / FRAMES_PER_SECOND, (seek + _WINDOW) / FRAMES_PER_SECOND
    previous_end = last_speech
    for index, segment in enumerate(segments):
        if not segment.words:
            continue
        if is_anomaly(segment):
            following = next((later for later in segments[index + 1 :] if later.words), None)
            words = following.words if following else None
            next_start = words[0].start if words else begin + n_frames / FRAMES_PER_SECOND
            is_after_silence = (
                segment.start - previous_end > threshold
                or segment.start < threshold
                or segment.start - begin < _NEAR_THE_EDGE
            )
            is_before_silence = (
                next_start - segment.end > threshold
                or (following is not None and is_anomaly(following))
                or window_end - segment.end < _NEAR_THE_EDGE
            )
            if is_after_silence and is_before_silence:
                return index
        previous_end = segment.end
    return None


def is_anomaly(segment: Segment) -> bool:
    """Whether the first words of a segment are unlike speech: too long, too short, improbable."""
    marks = PREPENDED + APPENDED
    words = [word for word in segment.words or () if word.word not in marks][:8]
    score = sum(map(_anomaly_score, words))
    return bool(segment.words) and (score >= 3 or score + 0.01 >= len(words))


def _anomaly_score(word: Word) -> float:
    length = word.end - word.start
    score = 1.0 if word.probability < 0.15 else 0.0
    if length < 0.133:
        score += (0.133 - length) * 15
    if length > 2.0:
        score += length - 2.0
    return score


def _last_end(segments: Sequence[Segment]) -> float | None:
    """Seconds at which the last word ends, or else the last segment."""
    words = next((segment.words for segment in reversed(segments) if segment.words), None)
    if words:
        return words[-1].end
    return segments[-1].end if segments else None


def _frames(seconds: float) -> int:
    return round(seconds * FRAMES_PER_SECOND)
