"""Transcripts as text: txt, srt, vtt, tsv, json.

Pure functions with the output of openai-whisper's writers, byte for byte, except where it could not
be parsed: a line break inside a segment's text becomes a space, because it would end a subtitle or
a table row, arrows in a subtitle's text are shortened, and WebVTT has `&amp;` and `&lt;` for &
and <. Segments without text are left out, except from JSON. JSON keeps characters as they are
(openai-whisper escapes all but ASCII, which parses to the same but makes most scripts unreadable),
and has null for a number that is not finite, because NaN is not JSON.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

from baldwhisper_mlx.output.subtitles import PLAIN, Layout, cues, one_line
from baldwhisper_mlx.transcription.segments import Transcript

Writer = Callable[[Transcript], str]


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
    if not (math.isfinite(seconds) and seconds >= 0):
        raise ValueError(f"a segment's time of {seconds} s cannot be written: it must be 0 or more")
    total_seconds, milliseconds = divmod(round(seconds * 1000.0), 1000)
    total_minutes, second = divmod(total_seconds, 60)
    hours, minute = divmod(total_minutes, 60)
    prefix = f"{hours:02d}:" if always_include_hours or hours else ""
    return f"{prefix}{minute:02d}:{second:02d}{decimal_marker}{milliseconds:03d}"


def write_txt(transcript: Transcript) -> str:
    """Plain text, one line per segment; with the channel, if each was transcribed by itself."""
    lines = ((segment.channel, one_line(segment.text)) for segment in transcript.segments)
    return "".join(f"{_label(channel)}{line}\n" for channel, line in lines if line)


def write_srt(transcript: Transcript, layout: Layout = PLAIN) -> str:
    """SubRip subtitles: number, `start --> end`, text, blank line."""
    written = _cues(transcript, layout, always_include_hours=True, decimal_marker=",")
    return "".join(
        f"{number}\n{start} --> {end}\n{_label(channel)}{text}\n\n"
        for number, (start, end, text, channel) in enumerate(written, start=1)
    )


def write_vtt(transcript: Transcript, layout: Layout = PLAIN) -> str:
    """WebVTT subtitles; the channel, if there is one, is a voice tag.

    A < in the text would begin a tag, and & a character's name.
    """
    written = _cues(
        transcript, layout, always_include_hours=False, decimal_marker=".", escape=_escape_vtt
    )
    return "WEBVTT\n\n" + "".join(
        f"{start} --> {end}\n{'' if channel is None else f'<v Channel {channel}>'}{text}\n\n"
        for start, end, text, channel in written
    )


def write_tsv(transcript: Transcript) -> str:
    """Tab-separated start, end (whole milliseconds) and text, under a header line."""
    rows = (
        f"{round(1000 * segment.start)}\t{round(1000 * segment.end)}\t"
        f"{_label(segment.channel)}{text}"
        for segment in transcript.segments
        if (text := one_line(segment.text).replace("\t", " "))
    )
    return "".join(f"{row}\n" for row in ("start\tend\ttext", *rows))


def write_json(transcript: Transcript) -> str:
    """All fields of the transcript, as one line of JSON in OpenAI's layout."""
    return json.dumps(_finite(transcript.to_dict()), ensure_ascii=False, allow_nan=False) + "\n"


WRITERS: Mapping[str, Writer] = {
    "txt": write_txt,
    "srt": write_srt,
    "vtt": write_vtt,
    "tsv": write_tsv,
    "json": write_json,
}
"""File extension to writer, for all formats."""


def writers_with(layout: Layout) -> dict[str, Writer]:
    """`WRITERS`, with a layout for the subtitles."""
    subtitles: dict[str, Writer] = {
        "srt": partial(write_srt, layout=layout),
        "vtt": partial(write_vtt, layout=layout),
    }
    return {**WRITERS, **subtitles}


def _label(channel: int | None) -> str:
    return "" if channel is None else f"channel {channel}: "


def _escape_vtt(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;")


def _cues(
    transcript: Transcript,
    layout: Layout,
    *,
    always_include_hours: bool,
    decimal_marker: str,
    escape: Callable[[str], str] = str,
) -> Iterator[tuple[str, str, str, int | None]]:
    """Start, end and text of each subtitle, with formatted times; and its channel."""
    channels = sorted({segment.channel for segment in transcript.segments}, key=lambda c: c or 0)
    listed = []
    for channel in channels:  # a subtitle has the words of one channel
        segments = tuple(s for s in transcript.segments if s.channel == channel)
        part = dataclasses.replace(transcript, segments=segments)
        listed += [(*cue, channel) for cue in cues(part, layout, escape)]
    if len(channels) > 1:
        listed.sort(key=lambda cue: cue[:2])
    for start, end, text, channel in listed:
        marks = [
            format_timestamp(
                time, always_include_hours=always_include_hours, decimal_marker=decimal_marker
            )
            for time in (start, end)
        ]
        yield marks[0], marks[1], text, channel


def _finite(value: Any) -> Any:
    """The JSON value with None instead of NaN and infinities."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
