"""Formats of players that mark each word while it is spoken: LRC, and ASS with karaoke tags.

Words are marked with `highlight_words`, if their times are known; without it both formats have
plain lines.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from baldwhisper_mlx.output.segment import Segment, Word
from baldwhisper_mlx.output.subtitles import PLAIN, Layout, Subtitle, one_line, subtitles
from baldwhisper_mlx.output.writers import check_time, label

_WORD_JOINER = "\u2060"


def write_lrc(segments: Sequence[Segment], layout: Layout = PLAIN) -> str:
    """Timed lyrics: `[mm:ss.xx]line`; marked words have their own times, `<mm:ss.xx>word`.

    A line has no end: players show it until the next one begins. Times of words are the extension
    of the format that is known as enhanced LRC.

    Args:
        segments: those without text are left out.
        layout: of words; each subtitle is one line.
    """
    return "".join(
        f"[{_lrc_time(line.start)}]{label(line.channel)}{_lrc_text(line, layout)}\n"
        for line in subtitles(segments, layout)
    )


def write_ass(segments: Sequence[Segment], layout: Layout = PLAIN) -> str:
    r"""Advanced SubStation Alpha subtitles; marked words have karaoke tags, `{\k50}word`.

    The number is the length of the word in hundredths of a second; a tag without a word is a
    pause. A channel is the name of the event, which editors show beside the text.

    Args:
        segments: those without text are left out.
        layout: of words.
    """
    from pysubs2 import Color, SSAEvent, SSAFile

    file = SSAFile()
    # A word is in the second colour until it is spoken.
    file.styles["Default"].secondarycolor = Color(160, 160, 160)
    for subtitle in subtitles(segments, layout):
        words = subtitle.words if layout.highlight_words else ()
        text = _karaoke(subtitle.start, words) if words else _ass_text(subtitle.text)
        event = SSAEvent(_hundredths(subtitle.start) * 10, _hundredths(subtitle.end) * 10, text)
        if subtitle.channel is not None:
            event.name = f"Channel {subtitle.channel}"
        file.append(event)
    return file.to_string("ass", header_notice="")


def _hundredths(seconds: float) -> int:
    return round(check_time(seconds) * 100)


def _lrc_time(seconds: float) -> str:
    whole, hundredths = divmod(_hundredths(seconds), 100)
    return f"{whole // 60:02d}:{whole % 60:02d}.{hundredths:02d}"


def _lrc_text(line: Subtitle, layout: Layout) -> str:
    if not (line.words and layout.highlight_words):
        return _without_times(one_line(line.text))
    # A word keeps its leading space: not all languages write one.
    marked = (f"<{_lrc_time(word.start)}>{_without_times(word.word)}" for word in line.words)
    return f"{''.join(marked)}<{_lrc_time(line.words[-1].end)}>".replace("\n", " ")


def _without_times(text: str) -> str:
    """The text with a space in what would be read as a time."""
    return re.sub(r"([\[<])(?=\d+:)", r"\1 ", text)


def _karaoke(start: float, words: Iterable[Word]) -> str:
    """Words, each behind a tag with its length; the lengths add up to the end of the last one."""
    text, shown_until = "", _hundredths(start)
    for word in words:
        begin, end = _hundredths(word.start), _hundredths(word.end)
        if begin > shown_until:  # a pause
            text += f"{{\\k{begin - shown_until}}}"
            shown_until = begin
        text += f"{{\\k{max(0, end - shown_until)}}}{_ass_text(word.word)}"
        shown_until = max(shown_until, end)
    return text


def _ass_text(text: str) -> str:
    r"""The text without what has a meaning in ASS: braces and backslashes; \N for a line break."""
    text = text.replace("\\", f"\\{_WORD_JOINER}").replace("{", r"\{").replace("}", r"\}")
    return text.replace("\n", r"\N")
