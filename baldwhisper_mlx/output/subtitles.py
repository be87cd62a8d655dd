"""Subtitles: which words each one has, in which lines, and which word is highlighted.

The rules are those of openai-whisper's subtitle writers. Standard library only.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypedDict

from baldwhisper_mlx.output.segment import Segment, Word

Cue = tuple[float, float, str, int | None]
"""Start and end in seconds, text, and channel; lines of the text are separated by line breaks."""

LONG_PAUSE = 3.0
"""Seconds without a word after which a new subtitle begins, unless segments end subtitles."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How words are laid out; every option needs word timestamps.

    Raises:
        ValueError: a number below 1.
    """

    max_line_width: int | None = None
    """Characters of a line."""
    max_line_count: int | None = None
    """Lines of a subtitle; with a line width, subtitles no longer end where segments do."""
    max_words_per_line: int | None = None
    """Words of a line; meant for layouts without a line width."""
    highlight_words: bool = False
    """Whether a subtitle is repeated for each of its words, with that word underlined."""

    def __post_init__(self) -> None:
        for name in ("max_line_width", "max_line_count", "max_words_per_line"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, not {value}")

    def check(self) -> None:
        """Checks that the options fit together; openai-whisper ignores some that do not.

        Raises:
            ValueError: they do not.
        """
        if self.max_line_count is not None and self.max_line_width is None:
            raise ValueError("max_line_count: only with max_line_width")
        if self.max_words_per_line is not None and self.max_line_width is not None:
            raise ValueError("max_words_per_line: give it or max_line_width, not both")


class LayoutOptions(TypedDict, total=False):
    """The options of `Layout` as keywords."""

    max_line_width: int | None
    max_line_count: int | None
    max_words_per_line: int | None
    highlight_words: bool


PLAIN = Layout()


@dataclass(frozen=True)
class Subtitle:
    """What is shown at once; `start` and `end` are seconds from the start of the audio."""

    start: float
    end: float
    text: str
    words: tuple[Word, ...] = ()
    """If their times are known; the first word of each line but the first begins with a line
    break."""
    channel: int | None = None


def subtitles(segments: Sequence[Segment], layout: Layout = PLAIN) -> list[Subtitle]:
    """The subtitles of segments: laid out by words where they have times, else one per segment.

    Args:
        segments: those without text are left out.
        layout: of words.

    Returns:
        Subtitles with text, in their order. Each has the words of one channel.
    """
    channels = sorted({segment.channel for segment in segments}, key=lambda channel: channel or 0)
    found = [
        dataclasses.replace(subtitle, channel=channel)
        for channel in channels
        for subtitle in _of_channel([s for s in segments if s.channel == channel], layout)
        if subtitle.text.strip()
    ]
    if len(channels) > 1:
        found.sort(key=lambda subtitle: (subtitle.start, subtitle.end))
    return found


def cues(
    segments: Sequence[Segment], layout: Layout = PLAIN, escape: Callable[[str], str] = str
) -> list[Cue]:
    """The subtitles of segments, each word underlined in its turn if the layout wants that.

    Args:
        segments: those without text are left out.
        layout: of words.
        escape: writes text without the characters that have a meaning in the file's format.
    """
    shown = subtitles(segments, layout)
    found = [cue for subtitle in shown for cue in _cues_of(subtitle, layout, escape)]
    if len({subtitle.channel for subtitle in shown}) > 1:
        found.sort(key=lambda cue: cue[:2])
    return found


def _of_channel(segments: Sequence[Segment], layout: Layout) -> Iterator[Subtitle]:
    if any(segment.words is not None for segment in segments):
        for words in _words_of_subtitles(segments, layout):
            text = "".join(word.word for word in words)
            yield Subtitle(words[0].start, words[-1].end, text, tuple(words))
    else:
        for segment in segments:
            yield Subtitle(segment.start, segment.end, one_line(segment.text))


def _cues_of(subtitle: Subtitle, layout: Layout, escape: Callable[[str], str]) -> Iterator[Cue]:
    channel, words = subtitle.channel, subtitle.words
    texts = [escape(word.word) for word in words]
    whole = _clean("".join(texts) if words else escape(subtitle.text))
    if not (words and layout.highlight_words):
        yield subtitle.start, subtitle.end, whole, channel
        return
    shown_until = subtitle.start
    for i, word in enumerate(words):
        if word.start != shown_until:  # a pause, in which no word is underlined
            yield shown_until, word.start, whole, channel
        marked = [*texts[:i], _underlined(texts[i]), *texts[i + 1 :]]
        yield word.start, word.end, _clean("".join(marked)), channel
        shown_until = word.end


def _words_of_subtitles(segments: Sequence[Segment], layout: Layout) -> Iterator[list[Word]]:
    """The words of each subtitle; the first of each line but the first begins with a line break."""
    by_segment = layout.max_line_count is None or layout.max_line_width is None
    width = layout.max_line_width or 1000
    per_line = layout.max_words_per_line or 1000
    subtitle: list[Word] = []
    length, n_lines = 0, 1
    last = next((s.words[0].start for s in segments if s.words), 0.0)
    for segment in segments:
        for i, original in enumerate(segment.words or ()):
            word = dataclasses.replace(original, word=re.sub(r"\s", " ", original.word))
            # Both begin a subtitle: a pause where segments do not count, a segment's or a line's
            # first word where they do.
            pause = not by_segment and word.start - last > LONG_PAUSE
            breaks = i % per_line == 0 and bool(subtitle) and by_segment
            if length and length + len(word.word) <= width and not pause and not breaks:
                length += len(word.word)
            else:
                # The word begins a line: of a new subtitle, or of this one.
                text = word.word.strip()
                full = layout.max_line_count is not None and (
                    pause or n_lines >= layout.max_line_count
                )
                if subtitle and (full or breaks):
                    yield subtitle
                    subtitle, n_lines = [], 1
                elif length:
                    n_lines += 1
                    text = f"\n{text}"
                length = len(text.strip())
                word = dataclasses.replace(word, word=text)
            subtitle.append(word)
            last = word.start
    if subtitle:
        yield subtitle


def _underlined(word: str) -> str:
    return re.sub(r"^(\s*)(.*)$", r"\1<u>\2</u>", word)


def one_line(text: str) -> str:
    """The text with spaces for its line breaks, and without empty lines."""
    return " ".join(line for part in text.splitlines() if (line := part.strip()))


def _clean(text: str) -> str:
    """The text without empty lines, which end a subtitle, and without the arrow of its times."""
    lines = (line for line in text.split("\n") if line.strip())
    return "\n".join(re.sub("-{2,}>", "->", line) for line in lines)
