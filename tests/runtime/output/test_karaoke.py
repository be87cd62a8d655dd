"""lrc and ass read back to the times and texts they were written from."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pysubs2 import SSAFile

from baldwhisper_mlx.output.segment import Segment, Word
from baldwhisper_mlx.output.transcript import Transcript

TIME = r"(\d{2,}):([0-5]\d)\.(\d{2})"

letters = st.sampled_from([*"ab é字'0:", *r"[]<>{}\N", "\\k50", "{\\an8}", "[01:02", "<3:04"])
words_of_text = st.lists(letters, min_size=1, max_size=6).map("".join).filter(str.strip)
hundredths = st.integers(0, 50)


@st.composite
def timed(draw: st.DrawFn) -> Transcript:
    """Segments of words in their order, with pauses, on whole hundredths of a second."""
    position, segments = draw(st.integers(0, 700_000)), []
    for index in range(draw(st.integers(1, 3))):
        words = []
        for text in draw(st.lists(words_of_text, min_size=1, max_size=4)):
            start = position + draw(hundredths)
            position = start + draw(hundredths)
            words.append(Word(start / 100, position / 100, f" {text}", 0.5))
        text = "".join(word.word for word in words)
        segments.append(
            Segment(index, 0, words[0].start, words[-1].end, text, (1,), 0, 0, 1, 0, tuple(words))
        )
    return Transcript("".join(s.text for s in segments), tuple(segments), "en", 9000.0)


def seconds(match: re.Match[str]) -> float:
    minutes, whole, hundredth = (int(part) for part in match.groups()[:3])
    return minutes * 60 + whole + hundredth / 100


def squeezed(text: str) -> str:
    return re.sub(r"\s", "", text)


@settings(deadline=None)
@given(timed())
def test_lrc_has_a_time_and_the_text_of_each_line(transcript: Transcript) -> None:
    lines = transcript.to_lrc().splitlines()
    assert len(lines) == len(transcript.segments)
    for line, segment in zip(lines, transcript.segments, strict=True):
        # As players read it: all times that stand together at the start.
        head = re.match(rf"(\[{TIME}\])+", line)
        assert head is not None
        assert head[0].count("[") == 1
        found = re.match(rf"\[{TIME}\]", line)
        assert found is not None
        assert seconds(found) == pytest.approx(segment.start, abs=0.001)
        assert squeezed(line[head.end() :]) == squeezed(segment.text)


@settings(deadline=None)
@given(timed())
def test_enhanced_lrc_has_the_start_of_each_word(transcript: Transcript) -> None:
    lines = transcript.to_lrc(highlight_words=True).splitlines()
    for line, segment in zip(lines, transcript.segments, strict=True):
        assert segment.words is not None
        marks = list(re.finditer(rf"<{TIME}>", line))
        times = [word.start for word in segment.words] + [segment.words[-1].end]
        assert [seconds(mark) for mark in marks] == pytest.approx(times, abs=0.001)
        texts = re.split(rf"<{TIME}>", line)[4::4]
        assert texts.pop() == ""
        assert [squeezed(t) for t in texts] == [squeezed(word.word) for word in segment.words]


def test_lrc_of_languages_without_spaces() -> None:
    words = (Word(0.0, 1.0, "日", 0.9), Word(1.0, 2.0, "本", 0.9))
    segment = Segment(0, 0, 0.0, 2.0, "日本", (1,), 0.0, -0.1, 1.0, 0.0, words)
    written = Transcript("日本", (segment,), "ja", 2.0).to_lrc(highlight_words=True)
    assert written == "[00:00.00]<00:00.00>日<00:01.00>本<00:02.00>\n"


def shown(text: str) -> str:
    """What libass shows of an event: without tags, escapes resolved."""
    text = re.sub(r"(?<!\\)\{[^}]*\}", "", text).replace("\\N", "\n")
    return re.sub(r"\\([{}])", r"\1", text).replace("\\\u2060", "\\")


@settings(deadline=None)
@given(timed(), st.sampled_from([{}, {"max_line_width": 8, "max_line_count": 2}]))
def test_ass_reads_back(transcript: Transcript, layout: dict[str, Any]) -> None:
    written = transcript.to_ass(**layout)
    events = list(SSAFile.from_string(written))
    assert squeezed("".join(shown(event.text) for event in events)) == squeezed(transcript.text)
    if not layout:
        for event, segment in zip(events, transcript.segments, strict=True):
            assert event.start == round(segment.start * 1000)
            assert event.end == round(segment.end * 1000)
    for event in events:
        assert "\\k" not in event.text.replace("\\\u2060k", "")


@settings(deadline=None)
@given(timed(), st.sampled_from([{}, {"max_line_width": 8, "max_line_count": 2}]))
def test_karaoke_tags_add_up_to_each_word(transcript: Transcript, layout: dict[str, Any]) -> None:
    events = list(SSAFile.from_string(transcript.to_ass(highlight_words=True, **layout)))
    words = [word for segment in transcript.segments for word in segment.words or ()]
    found = []
    for event in events:
        position = event.start
        for length, text in re.findall(r"(?<!\\)\{\\k(\d+)\}((?:\\\{|[^{])*)", event.text):
            if text:
                found.append((position, position + 10 * int(length), squeezed(shown(text))))
            position += 10 * int(length)
        assert position == event.end
    assert found == [
        (round(word.start * 1000), round(word.end * 1000), squeezed(word.word)) for word in words
    ]


def test_words_that_overlap_do_not_shift_the_rest() -> None:
    words = (Word(1.0, 2.0, " a", 0.9), Word(1.5, 2.5, " b", 0.9), Word(3.0, 3.5, " c", 0.9))
    segment = Segment(0, 0, 1.0, 3.5, " a b c", (1,), 0.0, -0.1, 1.0, 0.0, words)
    (event,) = SSAFile.from_string(
        Transcript(" a b c", (segment,), "en", 4.0).to_ass(highlight_words=True)
    )
    assert event.text == r"{\k100}a{\k50} b{\k50}{\k50} c"
