"""Segments as text: txt, srt, vtt, tsv.

Pure functions with the output of openai-whisper's writers, byte for byte, except where it could not
be parsed: a line break inside a segment's text becomes a space, because it would end a subtitle or
a table row, arrows in a subtitle's text are shortened, and WebVTT has `&amp;` and `&lt;` for &
and <. Segments without text are left out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

from baldwhisper_mlx.output.segment import Segment
from baldwhisper_mlx.output.subtitles import PLAIN, Layout, cues, one_line


def check_time(seconds: float) -> float:
    """The time itself, if it can be written.

    Raises:
        ValueError: it is negative or not finite.
    """
    if not (math.isfinite(seconds) and seconds >= 0):
        raise ValueError(f"a segment's time of {seconds} s cannot be written: it must be 0 or more")
    return seconds


def format_timestamp(seconds: float, *, always_include_hours: bool, decimal_marker: str) -> str:
    """A time as `[hh:]mm:ss.mmm`, rounded to milliseconds.

    Args:
        seconds: from the start of the audio.
        always_include_hours: as SRT wants; otherwise hours appear from one hour on.
        decimal_marker: "," in SRT, "." in WebVTT.

    Raises:
        ValueError: the time is negative or not finite.

    Example:
        >>> format_timestamp(3661.5, always_include_hours=False, decimal_marker=".")
        '01:01:01.500'
    """
    total_seconds, milliseconds = divmod(round(check_time(seconds) * 1000.0), 1000)
    total_minutes, second = divmod(total_seconds, 60)
    hours, minute = divmod(total_minutes, 60)
    prefix = f"{hours:02d}:" if always_include_hours or hours else ""
    return f"{prefix}{minute:02d}:{second:02d}{decimal_marker}{milliseconds:03d}"


def write_txt(segments: Sequence[Segment]) -> str:
    """Plain text, one line per segment; with the channel, if each was transcribed by itself."""
    lines = ((segment.channel, one_line(segment.text)) for segment in segments)
    return "".join(f"{label(channel)}{line}\n" for channel, line in lines if line)


def write_srt(segments: Sequence[Segment], layout: Layout = PLAIN, *, first: int = 1) -> str:
    """SubRip subtitles: number, from `first` on, `start --> end`, text, blank line."""
    written = _cues(segments, layout, always_include_hours=True, decimal_marker=",")
    return "".join(
        f"{number}\n{start} --> {end}\n{label(channel)}{text}\n\n"
        for number, (start, end, text, channel) in enumerate(written, start=first)
    )


def write_vtt(segments: Sequence[Segment], layout: Layout = PLAIN) -> str:
    """WebVTT subtitles; the channel, if there is one, is a voice tag.

    A < in the text would begin a tag, and & a character's name.
    """
    written = _cues(
        segments, layout, always_include_hours=False, decimal_marker=".", escape=_escape_vtt
    )
    return "WEBVTT\n\n" + "".join(
        f"{start} --> {end}\n{'' if channel is None else f'<v Channel {channel}>'}{text}\n\n"
        for start, end, text, channel in written
    )


def write_tsv(segments: Sequence[Segment]) -> str:
    """Tab-separated start, end (whole milliseconds) and text, under a header line."""
    rows = (
        f"{round(1000 * check_time(segment.start))}\t{round(1000 * check_time(segment.end))}\t"
        f"{label(segment.channel)}{text}"
        for segment in segments
        if (text := one_line(segment.text).replace("\t", " "))
    )
    return "".join(f"{row}\n" for row in ("start\tend\ttext", *rows))


def label(channel: int | None) -> str:
    """What stands before the text of a channel; nothing if channels were not told apart."""
    return "" if channel is None else f"channel {channel}: "


def _escape_vtt(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;")


def _cues(
    segments: Sequence[Segment],
    layout: Layout,
    *,
    always_include_hours: bool,
    decimal_marker: str,
    escape: Callable[[str], str] = str,
) -> Iterator[tuple[str, str, str, int | None]]:
    """Start, end and text of each subtitle, with formatted times; and its channel."""
    for start, end, text, channel in cues(segments, layout, escape):
        marks = [
            format_timestamp(
                time, always_include_hours=always_include_hours, decimal_marker=decimal_marker
            )
            for time in (start, end)
        ]
        yield marks[0], marks[1], text, channel
